//! The published files, where they lie beside the project.

use crate::tasks::{model, tokenizer};
use pawl_eval::{TASKS, TaskOptions, run_task};
use std::path::Path;

/// Items of each task, as published.
const ITEMS: [(&str, u64); 6] = [
    ("hellaswag_zeroshot", 10_042),
    ("copa", 100),
    ("winograd", 273),
    ("bigbench_repeat_copy_logic", 32),
    ("agi_eval_lsat_ar", 230),
    ("bigbench_operators", 210),
];

#[test]
fn every_task_reads_its_published_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/eval");
    let elsewhere = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/data/eval");
    let Some(folder) = [folder, elsewhere].into_iter().find(|folder| folder.is_dir()) else {
        eprintln!("skipped: ../shared/data not present");
        return;
    };
    let (model, tokenizer) = (model(64), tokenizer());
    for task in TASKS {
        let limit =
            ITEMS.iter().find(|(name, _)| *name == task.name).map_or(3, |(_, items)| *items as usize + 1);
        // All items of the small ones; of the large ones three are read from the whole.
        let limit = if limit > 1000 { 3 } else { limit };
        let options = TaskOptions {
            data_folder: &folder,
            limit: Some(limit),
            cache: None,
            model_hash: "",
            progress: &|_, _| (),
        };
        let score =
            run_task(task, &model, &tokenizer, &options).unwrap_or_else(|e| panic!("{}: {e}", task.name));
        let expected =
            ITEMS.iter().find(|(name, items)| *name == task.name && *items < 1000).map_or(3, |(_, n)| *n);
        assert_eq!(score.all.items, expected, "{}", task.name);
    }
}
