//! Records from JSONL: one `{"key": "...", "value": <any JSON>}` a line.
//!
//! The key is stored as the bytes of the (unescaped) string, the value as its raw JSON text, byte for byte as it stands
//! in the file; with `string_values` a value that is a JSON string is stored as the bytes of that string.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read};

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::input::Input;
use crate::interrupt;

/// Longest line taken in: the longest value with room for its escapes. A longer one is a bad line.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// One record to store.
#[derive(Clone, Debug)]
pub struct Record {
    /// Bytes of the key.
    pub key: Vec<u8>,
    /// Bytes of the value.
    pub value: Vec<u8>,
}

/// A line that is no record.
#[derive(Clone, Debug, Serialize)]
pub struct BadLine {
    /// Where it stands, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
}

/// What a line held.
#[derive(Debug)]
pub enum Line {
    /// A record.
    Record(Record),
    /// Something else.
    Bad(BadLine),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// The records of an input, in order.
pub struct Records {
    /// What error messages call the input.
    pub name: String,
    reader: BufReader<Box<dyn Read>>,
    buffer: Vec<u8>,
    line: u64,
    string_values: bool,
}

impl Records {
    /// Starts reading; `bar` follows the bytes taken in.
    ///
    /// # Errors
    /// The input cannot be read, or is not what its name says.
    pub fn new(input: Input, string_values: bool, bar: &ProgressBar) -> Result<Self, Failure> {
        let name = input.name.clone();
        let reader = input.into_reader(bar).map_err(|error| read_failure(&name, 0, &error))?;
        let reader = BufReader::with_capacity(256 << 10, reader);
        Ok(Self { name, reader, buffer: Vec::new(), line: 0, string_values })
    }

    /// Number of the last line read, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next line that is not blank; `None` at the end.
    ///
    /// # Errors
    /// The input cannot be read any further, or a signal asked to stop.
    pub fn next_line(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            self.buffer.clear();
            let taken = self.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.buffer);
            let taken = taken.map_err(|error| read_failure(&self.name, self.line + 1, &error))?;
            if taken == 0 {
                return Ok(None);
            }
            self.line += 1;
            if taken as u64 == LINE_BYTES_MAX && self.buffer.last() != Some(&b'\n') {
                return self.skip_long_line().map(Some);
            }
            let text =
                self.buffer.strip_prefix(b"\xef\xbb\xbf").filter(|_| self.line == 1).unwrap_or(&self.buffer);
            if text.trim_ascii().is_empty() {
                continue;
            }
            return Ok(Some(match parse(text, self.string_values) {
                Ok(record) => Line::Record(record),
                Err(problem) => Line::Bad(BadLine { line: self.line, problem }),
            }));
        }
    }

    fn skip_long_line(&mut self) -> Result<Line, Failure> {
        self.reader.skip_until(b'\n').map_err(|error| read_failure(&self.name, self.line, &error))?;
        let problem = format!("longer than {} MiB", LINE_BYTES_MAX >> 20);
        Ok(Line::Bad(BadLine { line: self.line, problem }))
    }
}

fn parse(text: &[u8], string_values: bool) -> Result<Record, String> {
    let fields: Fields<'_> = serde_json::from_slice(text).map_err(|error| describe(&error))?;
    let raw = fields.value.get();
    let value = if string_values && raw.starts_with('"') {
        serde_json::from_str::<String>(raw).map_err(|error| describe(&error))?.into_bytes()
    } else {
        raw.as_bytes().to_vec()
    };
    Ok(Record { key: fields.key.into_owned().into_bytes(), value })
}

/// serde_json's words without its line number, which would always be 1.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("column {}: {what}; expected {{\"key\": \"...\", \"value\": ...}}", error.column())
}

fn read_failure(name: &str, line: u64, error: &io::Error) -> Failure {
    if interrupt::requested() {
        return Failure::Interrupted;
    }
    let place = if line == 0 { String::new() } else { format!(":{line}") };
    Failure::Other(format!("read {name}{place}: {error}"))
}
