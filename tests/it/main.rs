//! Integration tests of the library, one binary.

mod life; // what one caller sees: insert, get, remove, expiry, the tasks, reopening
