//! The lab as a researcher sees it, made once: from a campaign that runs, or from the files of one that does not.

use crate::books::Books;
use crate::campaign::{CampaignError, scale_of};
use crate::researcher::{Context, Left};
use crate::store::Store;
use crate::world::{Checked, World};
use pawl_record::{CampaignBudget, CampaignManifest, Noise, Proposal, Settings};
use std::path::{Path, PathBuf};

/// What a [`Context`] is made of.
pub(crate) struct Seen<'a> {
    pub(crate) lab: &'a Path,
    pub(crate) store: &'a Store,
    pub(crate) manifest: &'a CampaignManifest,
    pub(crate) books: &'a Books,
    pub(crate) noise: &'a Noise,
    pub(crate) compiled: &'a Checked,
    pub(crate) in_round: &'a [Proposal],
    pub(crate) left: Left,
    pub(crate) world: &'a dyn World,
    pub(crate) say: &'a dyn Fn(&str),
}

impl Seen<'_> {
    /// Shows the lab to `look`.
    pub(crate) fn show<T>(&self, look: impl FnOnce(&Context<'_>) -> T) -> T {
        let Seen { store, manifest, books, world, .. } = self;
        let champion = books.champion();
        let depth = manifest.rungs.first().depth;
        let compile = |settings: &Settings| world.check(&store.path(&champion.recipe.file), depth, settings);
        let compile_text = |text: &str, settings: &Settings| {
            let path = store.keep_draft(text).map_err(|error| error.to_string())?;
            world.check(&path, depth, settings)
        };
        look(&Context {
            lab: self.lab,
            manifest,
            seed: manifest.seed,
            number: books.proposals.len() as u64 + 1,
            champion,
            history: books,
            noise: scale_of(self.noise),
            measured: self.noise,
            judge: &manifest.judge,
            in_round: self.in_round,
            compiled: self.compiled,
            compile: &compile,
            compile_text: &compile_text,
            left: self.left,
            interrupted: &|| world.interrupted(),
            unix_s: world.unix_s(),
            say: self.say,
        })
    }
}

/// A campaign read from its files, to be looked at while nothing or another process works on it.
pub struct Lab<'a> {
    folder: PathBuf,
    store: Store,
    manifest: CampaignManifest,
    books: Books,
    noise: Noise,
    compiled: Checked,
    world: &'a dyn World,
    workers: usize,
}

impl<'a> Lab<'a> {
    /// The campaign of a lab, if its noise is known; `world` is asked to compile only.
    pub fn open(lab: &Path, world: &'a dyn World, workers: usize) -> Result<Option<Lab<'a>>, CampaignError> {
        let store = Store::new(lab);
        let (Some(manifest), Some(noise)) = (store.manifest()?, store.noise()?) else { return Ok(None) };
        let books = Books::read(&store)?;
        let Some(champion) = books.champions.last() else { return Ok(None) };
        let compiled = world
            .check(&store.path(&champion.recipe.file), manifest.rungs.first().depth, &champion.settings)
            .map_err(CampaignError::Recipe)?;
        Ok(Some(Lab { folder: lab.to_path_buf(), store, manifest, books, noise, compiled, world, workers }))
    }

    /// Shows the lab to `look`.
    pub fn show<T>(&self, look: impl FnOnce(&Context<'_>) -> T) -> Result<T, CampaignError> {
        let elapsed_s = self.books.last_elapsed_s(Some(&self.noise), &self.store)?;
        let (seconds, trials) = match self.manifest.budget {
            CampaignBudget::Minutes(minutes) => (Some((60.0 * minutes - elapsed_s).max(0.0)), None),
            CampaignBudget::Trials(trials) => (None, Some(trials.saturating_sub(self.books.num_runs()))),
        };
        let seen = Seen {
            lab: &self.folder,
            store: &self.store,
            manifest: &self.manifest,
            books: &self.books,
            noise: &self.noise,
            compiled: &self.compiled,
            in_round: &[],
            left: Left { seconds, trials, trial_s: self.noise.run_seconds, workers: self.workers },
            world: self.world,
            say: &|_| {},
        };
        Ok(seen.show(look))
    }
}
