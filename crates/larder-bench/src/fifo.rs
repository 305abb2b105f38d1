//! What capacity eviction has to beat: a cache that deletes its oldest file when it is full, and looks at nothing else.

use std::collections::{HashMap, VecDeque};

/// An exact FIFO cache of files.
#[derive(Debug)]
pub struct FifoCache {
    capacity_bytes: u64,
    file_bytes: u64,
    bytes: u64,
    /// The number of the file that holds a key's newest record.
    home: HashMap<u64, u64>,
    /// Oldest first: bytes, and the keys written to it.
    files: VecDeque<(u64, Vec<u64>)>,
    /// Number of the oldest file.
    first: u64,
}

impl FifoCache {
    /// An empty cache; `file_bytes` is what it evicts at a time.
    pub fn new(capacity_bytes: u64, file_bytes: u64) -> Self {
        let files = VecDeque::from([(0, Vec::new())]);
        Self { capacity_bytes, file_bytes, bytes: 0, home: HashMap::new(), files, first: 0 }
    }

    /// Whether the key is there.
    pub fn contains(&self, key: u64) -> bool {
        self.home.contains_key(&key)
    }

    /// Writes a record of the key; makes room first, file by file.
    pub fn insert(&mut self, key: u64, record_bytes: u64) {
        while self.bytes + record_bytes > self.capacity_bytes && self.files.len() > 1 {
            self.drop_oldest();
        }
        if self.files.back().is_none_or(|(bytes, _)| bytes + record_bytes > self.file_bytes) {
            self.files.push_back((0, Vec::new()));
        }
        let number = self.first + self.files.len() as u64 - 1;
        if let Some((bytes, keys)) = self.files.back_mut() {
            *bytes += record_bytes;
            keys.push(key);
        }
        self.bytes += record_bytes;
        self.home.insert(key, number);
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn drop_oldest(&mut self) {
        let Some((bytes, keys)) = self.files.pop_front() else { return };
        for key in keys {
            if self.home.get(&key) == Some(&self.first) {
                self.home.remove(&key);
            }
        }
        self.bytes -= bytes;
        self.first += 1;
    }
}
