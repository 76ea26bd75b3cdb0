//! The names a recipe finds without loading anything.

use starlark::environment::{Globals, GlobalsBuilder, LibraryExtension};
use std::sync::OnceLock;

/// The global names, built once.
pub(crate) fn globals() -> &'static Globals {
    static GLOBALS: OnceLock<Globals> = OnceLock::new();
    GLOBALS.get_or_init(|| {
        GlobalsBuilder::extended_by(&[LibraryExtension::StructType])
            .with(crate::guarded::guarded_functions)
            .with(crate::guarded::guarded_methods)
            .with(crate::operators::operators)
            .with(crate::settings::settings)
            .with(crate::declare::declaration)
            .with(crate::init::inits)
            .with(crate::ops::elementwise_functions)
            .with(crate::ops::functions)
            .build()
    })
}
