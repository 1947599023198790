//! Keys of tests before something is used again.

use std::time::Duration;

use super::reader::Reader;

/// The operator's test of GPUs and of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Program and arguments; none if empty.
    pub test: Vec<String>,
    /// A test that takes longer has failed.
    pub test_timeout: Duration,
}

/// `[health]`.
pub(super) fn read(root: &mut Reader) -> Health {
    let mut table = root.table("health");
    let health = Health {
        test: table.strings("test"),
        test_timeout: table.duration("test_timeout", Duration::from_secs(60)),
    };
    if health
        .test
        .first()
        .is_some_and(|program| !program.starts_with('/'))
    {
        let hint = "start with `/`, such as [\"/usr/bin/dcgmi\", \"diag\", \"-r\", \"1\"]";
        table.fault("test", "the program's path is not absolute", hint);
    }
    if health.test_timeout.is_zero() {
        table.fault("test_timeout", "is zero", "60s is usual");
    }
    root.adopt(table);
    health
}
