//! A lab with records made up by hand.

use pawl_record::{
    Budget, CampaignBudget, CampaignManifest, Category, Change, DataRef, Decision, JudgeSettings, Ladder,
    LearningPoint, Prediction, Promotion, Proposal, RecipeRef, RunManifest, RunResult, RunStatus, Rung,
    SCHEMA, SettingValue, Settings, Verdict, write_json,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

pub(crate) fn new() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn id_of(n: u64) -> String {
    // Spread the digits, so that id order and time order differ.
    format!("{:012x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16)
}

pub(crate) fn manifest(n: u64) -> RunManifest {
    RunManifest {
        schema: SCHEMA,
        id: id_of(n),
        recipe: if n.is_multiple_of(2) { "tiny" } else { "nano" }.into(),
        recipe_hash: "aa".repeat(32),
        fingerprint: format!("{:064x}", n / 2),
        settings: Settings::from([
            ("depth".into(), SettingValue::Int(4)),
            ("lr".into(), SettingValue::Float(0.01 * (n + 1) as f64)),
        ]),
        depth: 4,
        seed: n,
        init_seed: n,
        data: DataRef { name: "crates".into(), hash: "dd".repeat(32) },
        budget: Budget::Flops(5e11),
        num_steps: 30,
        tokens_per_step: 4096,
        seq_len: 256,
        num_params: 840_000,
        flops_per_step: 1.6e10,
        seal: false,
        precision: pawl_record::Precision::F32,
        version: "0.1.0".into(),
        created_unix_s: 1_800_000_000 + n / 3,
        machine: "test".into(),
    }
}

pub(crate) fn result(n: u64) -> RunResult {
    let diverged = n % 7 == 6;
    let val_bpb = (!diverged).then_some(2.4 - 0.01 * n as f64);
    RunResult {
        schema: SCHEMA,
        id: id_of(n),
        status: if diverged { RunStatus::Diverged } else { RunStatus::Finished },
        reason: diverged.then(|| "loss is NaN at step 12".into()),
        val_bpb,
        val_bpb_by_domain: val_bpb.map(|bpb| ("code".to_string(), bpb - 0.1)).into_iter().collect(),
        sealed_bpb: None,
        steps: 30,
        tokens: 30 * 4096,
        flops: 4.8e11,
        train_seconds: 4.0 + 0.1 * n as f64,
        total_seconds: 5.0,
        tokens_per_sec: 30_000.0,
        mfu: 0.6,
        peak_memory_bytes: 90_000_000,
        checkpoint_hash: Some("cc".repeat(32)),
        curve: (0..30).map(|step| LearningPoint { step, loss: 8.0 - 0.1 * step as f64 }).collect(),
        vitals: None,
    }
}

pub(crate) fn write_manifest(lab: &Path, n: u64) {
    let folder = lab.join("runs").join(id_of(n));
    fs::create_dir_all(&folder).unwrap();
    write_json(&folder.join("run.json"), &manifest(n)).unwrap();
    fs::write(folder.join("recipe.star"), format!("# head\nlr = {n}\n# tail\n")).unwrap();
}

pub(crate) fn write_result(lab: &Path, n: u64) {
    write_json(&lab.join("runs").join(id_of(n)).join("result.json"), &result(n)).unwrap();
}

pub(crate) fn write_run(lab: &Path, n: u64) {
    write_manifest(lab, n);
    write_result(lab, n);
}

fn recipe() -> RecipeRef {
    RecipeRef { name: "tiny".into(), hash: "aa".repeat(32), file: "recipes/tiny.star".into() }
}

pub(crate) fn campaign_manifest() -> CampaignManifest {
    CampaignManifest {
        schema: SCHEMA,
        id: "c0ffee000000".into(),
        recipe: recipe(),
        settings: Settings::new(),
        rungs: Ladder::new(vec![Rung { depth: 4, flops: 5e11, precision: pawl_record::Precision::F32 }])
            .unwrap(),
        data: DataRef { name: "crates".into(), hash: "dd".repeat(32) },
        seed: 1,
        researcher: "optimizer".into(),
        judge: JudgeSettings {
            alpha: 0.05,
            min_effect_bpb: 0.001,
            champion_runs: 4,
            fresh_slack_sds: None,
            noise_pairs: 6,
            min_pairs: 2,
            max_pairs: 8,
            target_effect_sds: 1.0,
            target_power: 0.8,
            mixture_sds: 2.0,
            climb_level: 0.05,
            climb_min_pairs: 2,
            climb_max_pairs: 4,
        },
        budget: CampaignBudget::Trials(40),
        version: "0.1.0".into(),
        created_unix_s: 1_800_000_000,
        machine: "test".into(),
    }
}

pub(crate) fn proposal(number: u64) -> Proposal {
    Proposal {
        schema: SCHEMA,
        number,
        generation: 0,
        changes: vec![Change {
            setting: "lr".into(),
            from: SettingValue::Float(0.01),
            to: SettingValue::Float(0.01 * number as f64),
        }],
        recipe: None,
        settings: BTreeMap::from([("lr".into(), SettingValue::Float(0.01 * number as f64))]),
        category: Category::Knob,
        hypothesis: "a larger step learns faster".into(),
        prediction: Prediction { gain_bpb: 0.01, keep_probability: 0.2 },
        researcher: "optimizer".into(),
        author: None,
        created_unix_s: 1_800_000_000 + number,
    }
}

pub(crate) fn verdict(number: u64) -> Verdict {
    let decision = match number % 5 {
        0 => Decision::Keep,
        1 => Decision::Reject("hopeless".into()),
        2 => Decision::Undecided("8 pairs".into()),
        3 => Decision::Skipped("tried as #1".into()),
        _ => Decision::Failed("diverged".into()),
    };
    Verdict {
        schema: SCHEMA,
        proposal: number,
        generation: 0,
        promoted: decision == Decision::Keep,
        decision,
        fingerprint: Some(format!("{number:064x}")),
        num_params: Some(840_000),
        pairs: Vec::new(),
        evidence: None,
        seconds_ratio: None,
        equal_time: None,
        climbs: Vec::new(),
        fresh: None,
        worth: None,
        flops: 1e12,
        runs: 2,
        run_seconds: 8.0,
        elapsed_s: 10.0 * number as f64,
        created_unix_s: 1_800_000_001 + number,
    }
}

pub(crate) fn promotion(generation: u64, run: u64) -> Promotion {
    Promotion {
        fresh_runs: Vec::new(),
        fresh_bpb: Vec::new(),
        schema: SCHEMA,
        generation,
        proposal: (generation > 0).then_some(5),
        origin: None,
        recipe: recipe(),
        settings: Settings::new(),
        fingerprint: "00".repeat(32),
        num_params: 840_000,
        flops_per_step: 1.6e10,
        gain: None,
        mean_bpb: 2.3,
        run: id_of(run),
        elapsed_s: 60.0 * generation as f64,
    }
}

pub(crate) fn write_campaign(lab: &Path) {
    write_document(lab, "campaign.json", &campaign_manifest());
    for number in 1..=6 {
        write_document(lab, &format!("proposals/{number:04}.json"), &proposal(number));
    }
    for number in 1..=5 {
        write_document(lab, &format!("verdicts/{number:04}.json"), &verdict(number));
    }
    write_document(lab, "champions/0000.json", &promotion(0, 0));
    write_document(lab, "champions/0001.json", &promotion(1, 3));
}

pub(crate) fn write_document<T: serde::Serialize>(lab: &Path, name: &str, document: &T) {
    let path = lab.join("campaign").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_json(&path, document).unwrap();
}

/// Every row of every table of an index, in the order of its pages: what two equal indices share.
pub(crate) fn dump(lab: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(lab.join("ledger.sqlite")).unwrap();
    let mut lines = Vec::new();
    for table in ["runs", "results", "campaigns", "proposals", "verdicts", "promotions"] {
        let mut select = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = select.column_count();
        let mut rows = select.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let cells = (0..columns).map(|c| format!("{:?}", row.get_ref(c).unwrap()));
            lines.push(format!("{table} {}", cells.collect::<Vec<_>>().join(" | ")));
        }
    }
    lines
}
