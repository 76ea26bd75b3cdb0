//! The sandbox from outside: every attempt to get out, shown to work without it; programs that misbehave; programs that
//! would be paid for nothing.

use pawl_eval::sandbox::{Limits, Locks, Outcome, Sandbox};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Blocks of `== name` and a body of Python that returns "escaped" if it has got what it wanted.
const ATTEMPTS: &str = include_str!("attempts.txt");
/// The least number of attempts that must work on this machine without the sandbox.
const MIN_ATTEMPTS: usize = 120;

fn sandbox(limits: Limits, locks: Locks) -> Sandbox {
    let worker: Vec<OsString> = vec![env!("CARGO_BIN_EXE_pawl").into(), "sandbox-cell".into()];
    Sandbox::new(worker, limits, locks).unwrap()
}

fn locked(seconds: f64) -> Sandbox {
    sandbox(Limits { seconds, memory: 512 << 20, output: 1 << 20 }, Locks::All)
}

/// A function `f` of this body.
fn function(body: &str) -> String {
    let lines: Vec<String> = body.lines().map(|line| format!("    {line}\n")).collect();
    format!("def f():\n{}", lines.concat())
}

/// Does `one` for every index on two threads.
fn each(count: usize, one: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    one(at);
                }
            });
        }
    });
}

#[test]
fn every_attempt_that_works_without_the_sandbox_is_blocked_by_it() {
    let attempts: Vec<(&str, &str)> = ATTEMPTS
        .split("== ")
        .filter(|block| !block.is_empty())
        .map(|block| block.split_once('\n').unwrap())
        .collect();
    let open = sandbox(Limits { seconds: 30.0, memory: 8 << 30, output: 16 << 20 }, Locks::Off);
    let locked = locked(2.0);
    let escaped = |sandbox: &Sandbox, body: &str| {
        let outcome = sandbox.run(&function(body), &["f()".to_string()]).unwrap();
        outcome == Outcome::Values(vec![Ok(json!("escaped"))])
    };
    let working = AtomicUsize::new(0);
    let idle = std::sync::Mutex::new(Vec::new());
    each(attempts.len(), |at| {
        let (name, body) = attempts[at];
        if escaped(&open, body) {
            working.fetch_add(1, Ordering::Relaxed);
        } else {
            idle.lock().unwrap().push(name);
        }
        assert!(!escaped(&locked, body), "{name} gets out");
    });
    let (working, idle) = (working.into_inner(), idle.into_inner().unwrap());
    println!("{working} of {} attempts work without the sandbox; not here: {idle:?}", attempts.len());
    assert!(working >= MIN_ATTEMPTS, "{working} attempts work without the sandbox; {idle:?} do not");
}

/// Programs of every temper, the n-th of an endless row, and what becomes of each.
fn mixed(n: usize) -> (String, fn(&Outcome) -> bool) {
    let five = |outcome: &Outcome| *outcome == Outcome::Values(vec![Ok(json!(5))]);
    let fault = |outcome: &Outcome| matches!(outcome, Outcome::Values(values) if values[0].is_err());
    let none = |outcome: &Outcome| matches!(outcome, Outcome::NoAnswer);
    let late = |outcome: &Outcome| matches!(outcome, Outcome::TimedOut | Outcome::NoAnswer);
    let much = |outcome: &Outcome| matches!(outcome, Outcome::TooMuchOutput);
    let any: fn(&Outcome) -> bool =
        |outcome| !matches!(outcome, Outcome::Values(values) if values[0] == Ok(json!(5)));
    let kinds: [(&str, fn(&Outcome) -> bool); 20] = [
        ("def f(): return 2 + 3", five),
        ("import math\ndef f(): return math.isqrt(25 + N - N)", five),
        ("def f(): return len([c for c in 'abcde'])", five),
        ("import re, json, collections\ndef f(): return int(re.sub('[^5]', '', 'a5b'))", five),
        ("def f(: return 5", fault),
        ("def f(): return 1 // 0", fault),
        ("def f(): return f()", fault),
        ("raise SystemExit(5)\ndef f(): return 5", fault),
        ("import os\nos._exit(0)", none),
        ("def f(): return object()", fault),
        ("def f(): return g(5)", fault),
        ("while True: pass", late),
        (
            "def f():\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
            late,
        ),
        ("import time\ntime.sleep(60)", late),
        // The pipe may be gone before the process is: then the program ends by its own error.
        ("def f():\n    while True: print('x' * 10000)", any),
        ("def f(): return 'x' * (2 << 20)", much),
        ("def f():\n    x = []\n    while True: x.append('a' * (N + 1000000))", any),
        ("import ctypes\nctypes.string_at(0)", none),
        (
            "import os\nfor fd in range(64):\n    try: os.close(fd)\n    except OSError: pass\ndef f(): return 5",
            none,
        ),
        ("def f():\n    import sys\n    sys.setrecursionlimit(10**6)\n    return f()", any),
    ];
    let (text, becomes) = kinds[n % kinds.len()];
    (text.replace('N', &n.to_string()), becomes)
}

fn check_mixed(count: usize) {
    let sandbox = locked(1.0);
    each(count, |n| {
        let (program, becomes) = mixed(n);
        let outcome = sandbox.run(&program, &["f()".to_string()]).unwrap();
        assert!(becomes(&outcome), "program {n} came to {outcome:?}:\n{program}");
    });
}

#[test]
fn no_program_hangs_and_each_ends_as_it_deserves() {
    check_mixed(40);
}

#[test]
#[ignore = "the thousand of the record; forty of them run always"]
fn a_thousand_mixed_programs_end_as_they_deserve() {
    check_mixed(1000);
}

/// Programs that want to be paid for f(3) = 8, f(5) = 24, f(-2) = 3 without knowing the rule.
const FORGERIES: [&str; 32] = [
    "print('{\"values\": [{\"value\": 8}, {\"value\": 8}, {\"value\": 8}]}')",
    "print('PASS')\nraise SystemExit(0)",
    "import os\nos._exit(0)",
    "import sys\nsys.exit(0)",
    "def f(x): return True",
    "def f(x): return '8'",
    "def f(x): return [8]",
    "def f(x): return 8.5",
    "def f(x): return float('nan')",
    "def f(x): return None",
    "class A:\n    def __eq__(self, other): return True\ndef f(x): return A()",
    "class A(int):\n    def __eq__(self, other): return True\n    def __hash__(self): return 0\ndef f(x): return A(7)",
    "class A(str):\n    def __eq__(self, other): return True\ndef f(x): return A('x')",
    "class A(dict):\n    def __eq__(self, other): return True\ndef f(x): return A()",
    "import json\njson.dumps = lambda *a, **k: '8'\ndef f(x): return 7",
    "import json\njson.loads = lambda *a, **k: True\ndef f(x): return 7",
    "import builtins\nbuiltins.eval = lambda *a: 'passed'",
    "import sys\nsys._getframe(2).f_locals['job']['calls'] = []",
    "import sys\nsys._getframe(1).f_locals['values'].append({'value': True})\ndef f(x): return 7",
    "import sys\nf = sys._getframe\ndef f(x): return sys._getframe(1).f_locals",
    "import os, sys\nj = sys._getframe(2).f_locals['job']\nos.write(3, ('{\"nonce\": \"%s\", \"values\": [{\"value\": true}, {\"value\": true}, {\"value\": true}]}' % j['nonce']).encode())\nos._exit(0)",
    "import os, sys\nj = sys._getframe(2).f_locals['job']\nos.write(3, ('{\"nonce\": \"%s\", \"values\": []}' % j['nonce']).encode())\nos._exit(0)",
    "import os\nfor fd in range(10):\n    try: os.write(fd, b'refused: nothing')\n    except OSError: pass\nos._exit(0)",
    "import os\nfor fd in range(10):\n    try: os.write(fd, b'locked\\n{\"nonce\": \"\", \"values\": [{\"value\": 8}, {\"value\": 8}, {\"value\": 8}]}')\n    except OSError: pass\nos._exit(0)",
    "import gc\ndef f(x):\n    return [o for o in gc.get_objects() if isinstance(o, dict) and 'expected' in o]",
    "import os\ndef f(x): return open('/proc/%d/environ' % os.getppid()).read()",
    "import sys\ndef f(x): return sys.argv",
    "import os\ndef f(x): return dict(os.environ)",
    "import atexit, os\natexit.register(lambda: os.write(3, b'{\"values\": [{\"value\": 8}, {\"value\": 8}, {\"value\": 8}]}'))\ndef f(x): return 7",
    "def f(*a): raise AssertionError('8')",
    "def f(x): return {'value': 8}",
    "import os, sys\nj = sys._getframe(2).f_locals['job']\nr = ('{\"nonce\": \"%s\", \"values\": [{\"value\": 7}, {\"value\": 7}, {\"value\": 7}]}' % j['nonce']).encode()\nos.write(3, r * 2)\nos._exit(0)",
];

#[test]
fn no_forged_reward_is_paid_and_an_earned_one_is() {
    let sandbox = locked(2.0);
    let paid = |program: &str| -> bool {
        let right: Vec<Result<Value, String>> = vec![Ok(json!(8)), Ok(json!(24)), Ok(json!(3))];
        let calls = ["f(3)", "f(5)", "f(-2)"].map(str::to_string);
        sandbox.run(program, &calls).unwrap() == Outcome::Values(right)
    };
    assert!(paid("def f(x): return x * x - 1"));
    each(FORGERIES.len(), |at| assert!(!paid(FORGERIES[at]), "paid:\n{}", FORGERIES[at]));
}

#[test]
fn python_problems_of_a_file_are_judged_by_values_that_the_program_never_sees() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mbpp.jsonl");
    let lines: Vec<String> = (0..40)
        .map(|n| {
            json!({
                "text": format!("Write a function to add {n}."),
                "code": format!("def add(x):\n    return x + {n}"),
                "test_list": [format!("assert add(1) == 1 + {n}"), format!("assert add(-5) == {}", n - 5)],
            })
            .to_string()
        })
        .collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    let mut env = pawl_eval::env::Environment::mbpp(&path, locked(2.0)).unwrap();
    let problem = env.problem(pawl_eval::env::ProblemSplit::Test, 0, 0, 1).unwrap();
    let right = problem.demonstration.clone().unwrap();
    let fenced = format!("Sure:\n```python\n{right}\n```");
    let shown = problem.prompt.rsplit(' ').next().unwrap();
    let table = format!("def add(x):\n    return 1 + {shown}");
    for (answer, worth) in
        [(right.as_str(), 1.0), (&fenced, 1.0), (&table, 0.0), ("while True: pass", 0.0), ("", 0.0)]
    {
        assert_eq!(env.reward(&problem, answer).unwrap(), worth, "{answer}");
    }
}

/// Becomes a command for which the system call of a number does not exist.
#[cfg(target_arch = "x86_64")]
const WITHOUT: &str = r#"
import ctypes, struct, os, sys
def line(code, jump, skip, k): return struct.pack("HBBI", code, jump, skip, k)
program = line(0x20, 0, 0, 0) + line(0x15, 0, 1, int(sys.argv[1])) + line(6, 0, 0, 0x50026) + line(6, 0, 0, 0x7fff0000)
text = ctypes.create_string_buffer(program)
class Filter(ctypes.Structure): _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_void_p)]
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(4, ctypes.addressof(text))), 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"#;

#[cfg(target_arch = "x86_64")]
#[test]
fn a_kernel_that_lacks_a_part_is_refused_unless_the_user_says_otherwise() {
    let python = pawl_eval::sandbox::Python::find().unwrap().program;
    let under = |missing: &str, locks| {
        let command: Vec<OsString> = vec![
            python.clone().into(),
            "-c".into(),
            WITHOUT.into(),
            missing.into(),
            env!("CARGO_BIN_EXE_pawl").into(),
            "sandbox-cell".into(),
        ];
        Sandbox::new(command, Limits::default(), locks)
    };
    for (missing, said) in [("444", "Landlock"), ("317", "seccomp")] {
        let error = under(missing, Locks::All).err().unwrap().to_string();
        assert!(error.contains("not whole") && error.contains(said), "{missing}: {error}");
        under(missing, Locks::Available).unwrap();
    }
    under("999", Locks::All).unwrap();
}
