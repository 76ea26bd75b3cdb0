//! What a campaign may be asked, and the one place where its defaults live.

use crate::campaign::CampaignError;
use crate::researcher::Researcher;
use crate::store::Store;
use pawl_record::{CampaignBudget, CampaignManifest, DataRef, JudgeSettings, Ladder, SCHEMA, Settings};
use std::path::PathBuf;

/// What a campaign is asked.
#[derive(Clone, Debug)]
pub struct CampaignOptions {
    /// The lab.
    pub lab: PathBuf,
    /// Name of the starting recipe: a shipped name or a file name.
    pub recipe_name: String,
    /// Its text. It is kept with the campaign, so that an edit of the file does not change what is compared;
    /// it may load `std/` only.
    pub recipe_text: String,
    /// Settings to start from, beside the recipe's defaults.
    pub settings: Settings,
    /// Scale and budget of trials.
    pub rungs: Ladder,
    /// What to train on.
    pub data: DataRef,
    /// Keys everything.
    pub seed: u64,
    /// Who proposes.
    pub researcher: Researcher,
    /// How it is judged.
    pub judge: JudgeSettings,
    /// When it stops.
    pub budget: CampaignBudget,
    /// Trials run side by side, and proposals screened together.
    pub workers: usize,
    /// Fresh seeds of the final measurement.
    pub final_seeds: u64,
    /// Version of pawl, for the record.
    pub version: String,
    /// Processor, for the record.
    pub machine: String,
}

/// Seeds of the final measurement, unless asked otherwise.
pub const FINAL_SEEDS: u64 = 5;

/// The judge's defaults, tuned by simulation (`cargo xtask judge power`) for campaigns of 20 to 200 proposals in
/// which useful changes are 1 to 5 pair standard deviations large.
pub fn judge_settings() -> JudgeSettings {
    JudgeSettings {
        alpha: 0.05,
        min_effect_bpb: 0.001,
        noise_pairs: 8,
        champion_runs: 8,
        fresh_slack_sds: Some(1.75),
        min_pairs: 3,
        max_pairs: 16,
        target_effect_sds: 1.5,
        target_power: 0.98,
        mixture_sds: 1.7,
        climb_level: 0.05,
        climb_min_pairs: 2,
        climb_max_pairs: 6,
    }
}

/// The lab's campaign: the one on file if it was asked the same, or a new one, now on file.
pub(crate) fn open_manifest(
    options: &CampaignOptions,
    store: &Store,
    unix_s: u64,
) -> Result<CampaignManifest, CampaignError> {
    let wanted = manifest(options, store, unix_s)?;
    let Some(found) = store.manifest()? else {
        store.write("campaign.json", &wanted)?;
        return Ok(wanted);
    };
    let same = [
        ("recipe", found.recipe.hash == wanted.recipe.hash),
        ("start", found.settings == wanted.settings),
        ("ladder", found.rungs == wanted.rungs),
        ("data set", found.data == wanted.data),
        ("seed", found.seed == wanted.seed),
        ("researcher", found.researcher == wanted.researcher),
        ("judge", found.judge == wanted.judge),
    ];
    match same.iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(CampaignError::OtherCampaign { lab: options.lab.clone(), what }),
        None => Ok(found),
    }
}

fn manifest(
    options: &CampaignOptions,
    store: &Store,
    unix_s: u64,
) -> Result<CampaignManifest, CampaignError> {
    let mut manifest = CampaignManifest {
        schema: SCHEMA,
        id: String::new(),
        recipe: store.keep_recipe(&options.recipe_name, &options.recipe_text)?,
        settings: options.settings.clone(),
        rungs: options.rungs.clone(),
        data: options.data.clone(),
        seed: options.seed,
        researcher: options.researcher.name(),
        judge: options.judge,
        budget: options.budget,
        version: options.version.clone(),
        created_unix_s: unix_s,
        machine: options.machine.clone(),
    };
    manifest.id = campaign_id(&manifest);
    Ok(manifest)
}

/// The id that follows from what determines a campaign.
pub(crate) fn campaign_id(manifest: &CampaignManifest) -> String {
    let identity = (
        (&manifest.recipe.hash, &manifest.settings, &manifest.rungs, &manifest.data),
        (manifest.seed, &manifest.researcher, &manifest.judge),
    );
    let text = serde_json::to_string(&identity).expect("records have string keys and finite numbers");
    blake3::hash(text.as_bytes()).to_hex()[..12].to_string()
}
