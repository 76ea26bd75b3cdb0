//! How the carried corpus is cleaned. Compiled into the build script and into the tests, never into
//! the library: a running pawl carries the result, not the method.

pub(crate) mod dedup;
pub(crate) mod doc_comments;
pub(crate) mod filter;
pub(crate) mod licence;
