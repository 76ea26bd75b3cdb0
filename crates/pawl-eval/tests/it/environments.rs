//! Environments from outside: their splits, their judges, their processes.

use pawl_eval::env::{BUILTIN, EnvError, Environment, ProblemSplit};
use pawl_eval::{builtin_instructions, demonstrations};
use std::collections::BTreeMap;

const SPLITS: [ProblemSplit; 3] = [ProblemSplit::Train, ProblemSplit::Validation, ProblemSplit::Test];

#[test]
fn no_problem_is_in_two_splits_and_every_demonstration_is_right() {
    for (name, _) in BUILTIN {
        let mut env = Environment::open(name).unwrap();
        for difficulty in 1..=3 {
            let mut keys: BTreeMap<String, ProblemSplit> = BTreeMap::new();
            for split in SPLITS {
                for idx in 0..200 {
                    let problem = env.problem(split, 5, idx, difficulty).unwrap();
                    assert_eq!(
                        *keys.entry(problem.key.clone()).or_insert(split),
                        split,
                        "{name}: {}",
                        problem.key
                    );
                    let right = problem.demonstration.clone().unwrap();
                    assert_eq!(
                        env.reward(&problem, &right).unwrap(),
                        1.0,
                        "{name}: {} {right}",
                        problem.prompt
                    );
                    for wrong in ["", "1000000", &format!("{right} 1000000")] {
                        assert_eq!(
                            env.reward(&problem, wrong).unwrap(),
                            0.0,
                            "{name}: {} {wrong}",
                            problem.prompt
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_same_numbers_are_the_same_problem_and_others_another() {
    for (name, _) in BUILTIN {
        let ask = |seed, idx, difficulty| {
            Environment::open(name)
                .unwrap()
                .problem(ProblemSplit::Test, seed, idx, difficulty)
                .unwrap()
                .prompt
        };
        assert_eq!(ask(1, 2, 2), ask(1, 2, 2));
        let others: Vec<String> =
            (0..8).map(|idx| ask(1, idx, 2)).chain((2..8).map(|seed| ask(seed, 2, 2))).collect();
        let different: std::collections::BTreeSet<&String> = others.iter().collect();
        assert!(different.len() > 10, "{name}: {others:?}");
        let len = |difficulty| (0..20).map(|idx| ask(1, idx, difficulty).len()).sum::<usize>();
        assert!(len(3) > len(1), "{name}: more difficult is longer");
    }
}

#[test]
fn a_program_is_judged_by_values_that_it_was_not_shown() {
    let mut env = Environment::open("program").unwrap();
    let problem = env.problem(ProblemSplit::Test, 0, 0, 1).unwrap();
    // f 0, f 1 and f 2 of a line are those of many programs; only the line has the others.
    let values: Vec<i64> =
        problem.prompt.split(", ").map(|part| part.split("= ").nth(1).unwrap().parse().unwrap()).collect();
    let (a, b) = (values[1] - values[0], values[0]);
    for (program, worth) in [
        (format!("x {a} * {b} +"), 1.0),
        (format!("{b} {a} x * +"), 1.0),
        (format!("x 2 min {a} * {b} +"), 0.0),
        (format!("x {a} * {b} + x x 1 - * x 2 - * +"), 0.0),
    ] {
        assert_eq!(env.reward(&problem, &program).unwrap(), worth, "{program} for {}", problem.prompt);
    }
}

#[test]
fn instructions_come_from_training_splits_and_name_the_commands() {
    let all = builtin_instructions(3, 1000).unwrap();
    assert!((900..1200).contains(&all.len()), "{}", all.len());
    assert_eq!(all, builtin_instructions(3, 1000).unwrap());
    assert!(all.iter().any(|m| m[0].content.contains("pawl sft") && m[1].content.contains("teaches")));
    let mut env = Environment::open("sum").unwrap();
    let shown: Vec<String> =
        demonstrations(&mut env, 0, 500, 1, 0.0).unwrap().into_iter().map(|m| m[0].content.clone()).collect();
    for problem in env.distinct(ProblemSplit::Test, 0, 100, 1).unwrap() {
        assert!(!shown.contains(&problem.prompt), "{}", problem.prompt);
    }
}

#[test]
fn problems_of_a_file_are_read_and_judged_by_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gsm.jsonl");
    let lines: Vec<String> = (0..60)
        .map(|n| format!(r#"{{"question":"what is {n} thousand?","answer":"it is {n}000.\n#### {n},000"}}"#))
        .collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    let mut env = Environment::open(&format!("gsm8k:{}", path.display())).unwrap();
    let problem = env.problem(ProblemSplit::Validation, 0, 0, 1).unwrap();
    let number = problem.prompt.split(' ').nth(2).unwrap();
    assert_eq!(env.reward(&problem, &format!("first 7, then {number}000.")).unwrap(), 1.0);
    assert_eq!(env.reward(&problem, &format!("{number}000 and 7")).unwrap(), 0.0);
    std::fs::write(&path, "{\"question\":\"a\",\"answer\":\"b\"}").unwrap();
    let said = Environment::open(&format!("gsm8k:{}", path.display())).err().unwrap().to_string();
    assert!(said.contains("gsm.jsonl, line 1: the answer does not end"), "{said}");
}

/// A process in the shell's own language, so that the test needs nothing else.
fn script(folder: &std::path::Path, body: &str) -> String {
    let path = folder.join("env.sh");
    std::fs::write(&path, format!("while read -r line; do case \"$line\" in\n{body}\nesac; done\n")).unwrap();
    format!("command:sh {}", path.display())
}

#[test]
fn an_external_environment_asks_and_judges_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let body = r#"*'"op":"problem"'*train*) echo '{"key":"a","prompt":"say yes","demonstration":"yes"}';;
*'"op":"problem"'*) echo '{"key":"b","prompt":"say no","state":{"n":1}}';;
*'"answer":"yes"'*) echo '{"reward":0.5}';;
*) echo '{"reward":0}';;"#;
    let mut env = Environment::open(&script(folder.path(), body)).unwrap();
    let problem = env.problem(ProblemSplit::Train, 0, 0, 1).unwrap();
    assert_eq!((problem.prompt.as_str(), problem.demonstration.as_deref()), ("say yes", Some("yes")));
    assert_eq!(env.reward(&problem, "yes").unwrap(), 0.5);
    assert_eq!(env.reward(&problem, "no").unwrap(), 0.0);
    assert_eq!(env.problem(ProblemSplit::Test, 0, 0, 1).unwrap().prompt, "say no");
}

#[test]
fn what_an_external_environment_does_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for (body, said) in [
        (r#"*) echo '{"key":"a","prompt":"same"}';;"#, "gave the problem \"a\" for train and for test"),
        ("*) echo nonsense;;", "answered \"nonsense\""),
        ("*) exit 3;;", "ended"),
        (r#"*) echo '{"prompt":"no key"}';;"#, "missing field `key`"),
    ] {
        let mut env = Environment::open(&script(folder.path(), body)).unwrap();
        let ask = |env: &mut Environment, split| env.problem(split, 0, 0, 1).map(drop);
        let error =
            ask(&mut env, ProblemSplit::Train).and_then(|()| ask(&mut env, ProblemSplit::Test)).unwrap_err();
        assert!(
            matches!(error, EnvError::Process { .. }) && error.to_string().contains(said),
            "{said}: {error}"
        );
    }
    let error = Environment::open("command:no-such-program-here").err().unwrap();
    assert!(error.to_string().contains("cannot be started"), "{error}");
    let error = Environment::open("chess").err().unwrap();
    assert_eq!(error.to_string(), "there is no environment chess");
}

#[test]
fn a_careless_teacher_is_wrong_as_often_as_said_and_near_what_is_right() {
    for name in ["sum", "sort", "edit", "program"] {
        let mut env = Environment::open(name).unwrap();
        let careless = demonstrations(&mut env, 3, 500, 2, 0.4).unwrap();
        assert_eq!(careless, demonstrations(&mut env, 3, 500, 2, 0.4).unwrap());
        let mut wrong = 0;
        for (idx, told) in careless.iter().enumerate() {
            let problem = env.problem(ProblemSplit::Train, 3, idx as u64, 2).unwrap();
            assert_eq!(told[0].content, problem.prompt);
            let (said, right) = (told[1].content.as_str(), problem.demonstration.clone().unwrap());
            let worth = env.reward(&problem, said).unwrap();
            assert_eq!(worth == 1.0, said == right, "{name}: {said} for {right}");
            assert_eq!(said.split(' ').count(), right.split(' ').count());
            wrong += u32::from(worth < 1.0);
        }
        // 200 expected, standard deviation 11.
        assert!((150..250).contains(&wrong), "{name}: {wrong} of 500");
    }
}
