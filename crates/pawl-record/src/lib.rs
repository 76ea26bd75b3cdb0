//! Every type that pawl writes to disk or sends over a wire, and the one way a file is written.
//!
//! Nothing here computes: no statistics, no training, no printing. A type that is never
//! serialised does not belong here.

mod chat;
mod data;
mod effect;
mod eval;
mod file;
mod ladder;
mod lesson;
mod research;
mod run;
mod search;
mod setting;
mod upkeep;
mod vitals;

pub use chat::{Conversation, Message, Role};
pub use data::{
    CorpusCrate, CorpusManifest, CorpusRefusal, DataManifest, DataSource, DomainRecord, SkippedFile,
    SourceFile, Split, SplitRule, TextSize, TokenFile, TokenManifest,
};
pub use effect::{Effect, EffectContext, EffectFile, EffectSource};
pub use eval::{PassScore, Share, TaskScore, WrittenScore};
pub use file::{FileError, append_line, from_json, read_json, write_atomic, write_json};
pub use ladder::{Climb, EqualTime, Factor, Fresh, Ladder, LawPoint, Rung, RungMeasured, RungWorth, Worth};
pub use lesson::{
    Control, EnvScore, LessonEvent, LessonManifest, LessonResult, LessonTask, PassRate, RlTask,
    RolloutRecord, RolloutSummary,
};
pub use research::{
    Author, CampaignBudget, CampaignEnd, CampaignManifest, Category, Change, Decision, EndReason, Evidence,
    FinalMeasurement, JudgeSettings, KeptEffect, Measured, Noise, NoisePair, PairRecord, Prediction,
    Promotion, Proposal, RecipeRef, Verdict,
};
pub use run::{
    Budget, CheckpointManifest, DataRef, Event, LearningPoint, Precision, RunManifest, RunResult, RunStatus,
    TensorHash,
};
pub use search::{Search, SearchTrial};
pub use setting::{SettingValue, Settings};
pub use upkeep::{Origin, PartClimb, PartRuling, Pruning, Replication, Reproduced, Retraction};
pub use vitals::{GroupVitals, LayerScale, Vitals};

/// Version of every document pawl writes; raised when a reader of the old form would be misled.
pub const SCHEMA: u32 = 1;

/// Environment variables that hold keys of services: read by `pawl`, handed to no child.
pub const KEY_VARIABLES: [&str; 3] = ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY"];
