//! The compression parameters of all classes together, and how the manifest keeps them.

use super::classes::CLASSES;
use super::compression::{CodecId, CompressionParameters};
use super::serialization::edit::{ChoiceEntry, ParametersEntry};
use crate::config::Codec;

/// The parameters of every class, and the common ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ParametersInForce {
    pub common: CompressionParameters,
    pub classes: [CompressionParameters; CLASSES],
}

impl ParametersInForce {
    /// The same for all.
    pub(super) fn all(common: CompressionParameters) -> Self {
        Self { common, classes: [common; CLASSES] }
    }

    /// All of them, the common ones first.
    pub(super) fn each(&self) -> impl Iterator<Item = CompressionParameters> {
        std::iter::once(self.common).chain(self.classes)
    }

    /// The levels that the dictionary in `slot` is used at.
    pub(super) fn levels_of(&self, slot: u8) -> Vec<i8> {
        let level = |parameters: CompressionParameters| match parameters.codec {
            Codec::Zstd(level) if parameters.dictionary == slot => Some(level),
            _ => None,
        };
        self.each().filter_map(level).collect()
    }
}

/// Parameters as the manifest keeps them.
pub(super) fn parameters_entry(
    parameters: &ParametersInForce,
    expected_ratio: f32,
    since_file_id: u64,
) -> ParametersEntry {
    let entry = |parameters: CompressionParameters| {
        let (codec, level) = match parameters.codec {
            Codec::None => (CodecId::None, 0),
            Codec::Lz4 => (CodecId::Lz4, 0),
            Codec::Zstd(level) => (CodecId::Zstd, level),
        };
        let CompressionParameters { dictionary, gate, .. } = parameters;
        ChoiceEntry { codec: codec as u8, level, dictionary, gate: gate.into() }
    };
    let (common, classes) = (entry(parameters.common), parameters.classes.map(entry));
    ParametersEntry { common, classes, expected_ratio, since_file_id }
}

/// Parameters out of the manifest.
pub(super) fn parameters_of(entry: &ParametersEntry) -> ParametersInForce {
    let parameters = |entry: ChoiceEntry| {
        let codec = match CodecId::from_u8(entry.codec) {
            Some(CodecId::Lz4) => Codec::Lz4,
            Some(CodecId::Zstd) => Codec::Zstd(entry.level),
            Some(CodecId::None | CodecId::ZstdFrame) | None => Codec::None,
        };
        CompressionParameters { codec, dictionary: entry.dictionary, gate: entry.gate == 1 }
    };
    ParametersInForce { common: parameters(entry.common), classes: entry.classes.map(parameters) }
}
