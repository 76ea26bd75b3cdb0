//! Recipes: Starlark programs that describe a model, its loss, its optimizer and its schedules as graphs.
//!
//! A recipe is hermetic and bounded: it reaches no file, clock, thread or environment variable, `load`
//! goes through the caller's function, and steps, memory, depth and graph size are limited. This crate
//! refuses to know data, budgets, seeds and kernels.

// The interpreter's derives write `unsafe impl`s for its values; no code of this crate is unsafe.
#![allow(unsafe_code)]

mod builtins;
mod context;
mod declare;
mod error;
mod graphs;
mod guarded;
mod init;
mod lesson;
mod limits;
mod load;
mod nesting;
mod operators;
mod ops;
mod optimizer;
mod recipe;
mod reference;
mod settings;
mod shaping;
mod shipped;
mod source;
mod summary;
mod tracer;
mod values;
mod words;

pub use declare::Packing;
pub use error::RecipeError;
pub use graphs::{LogitsGraph, LossGraph, ParamDecl, ScheduleDecl, StateDecl, TrainGraph, UpdateGraph};
pub use init::Init;
pub use lesson::Lesson;
pub use load::{Loader, Source};
pub use recipe::{Overrides, Recipe};
pub use reference::reference;
pub use settings::{Setting, SettingKind};
pub use shipped::{shipped, shipped_recipes, std_only, with_std};
pub use source::MAX_TEXT;
pub use summary::{ParamSummary, Summary};
