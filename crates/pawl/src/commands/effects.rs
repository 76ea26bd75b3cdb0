//! `pawl effects`: what changes were worth here and elsewhere; taken in from other labs, given to them, revoked.

use crate::args::{Effects, EffectsAction, EffectsFile, EffectsRevoke, Place};
use crate::errors::Failure;
use crate::lab::{from_ledger, ledger};
use crate::output::{Align, Answer, Block, Table};
use pawl_record::{Effect, EffectSource};
use pawl_research::library::{self, LibraryError, Pooled, words};
use serde_json::json;

pub(crate) fn run(args: Effects) -> Result<Answer, Failure> {
    match args.action {
        None => list(&args.place, args.setting.as_deref()),
        Some(EffectsAction::Export(args)) => export(&args),
        Some(EffectsAction::Import(args)) => import(&args),
        Some(EffectsAction::Revoke(args)) => revoke(&args),
    }
}

fn list(place: &Place, setting: Option<&str>) -> Result<Answer, Failure> {
    let ledger = ledger(&place.lab)?;
    let own = library::own(&place.lab, &ledger).map_err(from_ledger)?;
    let imported = library::imported(&place.lab).map_err(from_library)?;
    let is_wanted = |effect: &Effect| {
        setting.is_none_or(|name| effect.changes.iter().any(|change| change.setting == name))
    };
    let mut sources: Vec<EffectSource> = own.into_iter().chain(imported).collect();
    for source in &mut sources {
        source.effects.retain(is_wanted);
    }
    let pooled = library::pool(&sources);
    let mut text = if pooled.is_empty() { String::new() } else { table(&pooled) };
    let trials: u64 = pooled.iter().map(|it| it.trials).sum();
    text.push_str(&format!("effects: {} changes, {trials} trials, {} labs\n", pooled.len(), labs(&sources)));
    Ok(Answer::new(text, json!({ "effects": pooled, "sources": sources })))
}

fn labs(sources: &[EffectSource]) -> usize {
    sources.iter().filter(|source| !source.effects.is_empty()).count()
}

/// A negative change is a better score, as everywhere a person reads bits per byte.
fn table(pooled: &[Pooled]) -> String {
    let mut table = Table::new(&[
        ("change", Align::Left),
        ("labs", Align::Right),
        ("pairs", Align::Right),
        ("seen", Align::Right),
        ("believed change in val_bpb", Align::Right),
        ("between labs", Align::Right),
    ]);
    for it in pooled {
        table.row(vec![
            words(&it.changes),
            it.labs.to_string(),
            it.pairs.to_string(),
            format!("{:+.4}", -it.mean),
            format!("{:+.4} +- {:.4}", -it.posterior_mean, it.half_width),
            if it.labs > 1 { format!("{:.4}", it.tau) } else { "-".to_string() },
        ]);
    }
    table.text()
}

fn export(args: &EffectsFile) -> Result<Answer, Failure> {
    let lab = &args.place.lab;
    let document = library::export(lab, &ledger(lab)?, &args.file).map_err(from_library)?;
    let mut block = Block::default();
    sources(&mut block, "exported", &document.sources);
    block.line("file", args.file.display());
    Ok(Answer::new(block.text().to_string(), json!({ "exported": document, "file": args.file })))
}

fn import(args: &EffectsFile) -> Result<Answer, Failure> {
    let taken = library::import(&args.place.lab, &args.file).map_err(from_library)?;
    let mut block = Block::default();
    sources(&mut block, "imported", &taken);
    if taken.is_empty() {
        block.line("imported", "nothing: all of it is here already");
    }
    Ok(Answer::new(block.text().to_string(), json!({ "imported": taken })))
}

fn revoke(args: &EffectsRevoke) -> Result<Answer, Failure> {
    let gone = library::revoke(&args.place.lab, &args.source).map_err(from_library)?;
    let mut block = Block::default();
    sources(&mut block, "revoked", std::slice::from_ref(&gone));
    Ok(Answer::new(block.text().to_string(), json!({ "revoked": gone })))
}

fn sources(block: &mut Block, key: &str, sources: &[EffectSource]) {
    for source in sources {
        block.line(key, format!("{} effects of campaign {}", source.effects.len(), source.source));
    }
}

fn from_library(error: LibraryError) -> Failure {
    let hint = match &error {
        LibraryError::Ledger(error) => error.hint(),
        LibraryError::Empty { .. } => Some("a campaign makes them: pawl research".to_string()),
        LibraryError::NoSuchSource { known, .. } if known.is_empty() => {
            Some("nothing was imported".to_string())
        }
        LibraryError::NoSuchSource { known, .. } => Some(format!("there is {}", known.join(", "))),
        LibraryError::Wrong { .. } => {
            Some("`pawl effects export` in another lab writes such a file".to_string())
        }
        LibraryError::File(_) | LibraryError::Io { .. } => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
