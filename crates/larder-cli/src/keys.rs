//! Keys and values as arguments and as output: text where they are text, hex or base64 where they are not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Serialize;

use crate::failure::Failure;

/// How the keys of a command are written.
#[derive(Args, Clone, Copy, Debug)]
pub struct KeyOptions {
    /// Keys are given in hex: 00ff10 stands for three bytes.
    #[arg(long)]
    hex: bool,
}

impl KeyOptions {
    /// The bytes of a key as it was typed.
    ///
    /// # Errors
    /// With `--hex`, what is no hex.
    pub fn bytes(self, text: &std::ffi::OsStr) -> Result<Vec<u8>, Failure> {
        if !self.hex {
            return Ok(text.as_encoded_bytes().to_vec());
        }
        from_hex(text.as_encoded_bytes()).ok_or_else(|| {
            let text = text.to_string_lossy();
            Failure::Other(format!(
                "key {text:?}: not hex; --hex takes pairs of digits 0-9 and a-f, such as 00ff10"
            ))
        })
    }
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits.chunks(2).map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

/// A key for people: as it is if it is printable text, otherwise in hex.
pub fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hex(key)),
    }
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as JSON can carry them.
#[derive(Debug, Serialize)]
pub struct JsonBytes {
    /// The text, or the bytes in base64.
    pub text: String,
    /// `utf-8` or `base64`.
    pub encoding: &'static str,
}

impl JsonBytes {
    /// Text where the bytes are UTF-8, base64 where they are not.
    pub fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { text: text.to_owned(), encoding: "utf-8" },
            Err(_) => Self { text: STANDARD.encode(bytes), encoding: "base64" },
        }
    }
}
