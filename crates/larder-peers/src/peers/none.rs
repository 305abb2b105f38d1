//! No store: what the harness itself takes. Its rates are the limit of any rate here.

use std::path::Path;
use std::time::Duration;

use crate::Result;
use crate::peer::{Kind, Options, Peer, TtlSupport};
use crate::plan::Workload;

const KEEPS_NOTHING: &str = "there is no store";

/// Does nothing.
pub const KIND: Kind = Kind {
    name: "none",
    version: "no store",
    configuration: "keeps nothing; the driver itself makes what a get would have found, before the call is timed: one copy \
                    of the value more than with a store",
    ttl: TtlSupport::None,
    unable: &[
        (Workload::Restart, KEEPS_NOTHING),
        (Workload::Kill, KEEPS_NOTHING),
        (Workload::Delete, KEEPS_NOTHING),
        (Workload::Ttl, KEEPS_NOTHING),
        (Workload::Limited, KEEPS_NOTHING),
    ],
    open,
};

struct Nothing;

fn open(_: &Path, _: &Options) -> Result<Box<dyn Peer>> {
    Ok(Box::new(Nothing))
}

impl Peer for Nothing {
    fn put(&self, _: &[u8], _: &[u8], _: Option<Duration>) -> Result<()> {
        Ok(())
    }

    fn get(&self, _: &[u8], value: &mut Vec<u8>) -> Result<bool> {
        Ok(!value.is_empty())
    }

    fn delete(&self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    fn is_nothing(&self) -> bool {
        true
    }
}
