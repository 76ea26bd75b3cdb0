//! A process locks itself in and becomes Python: limits on resources, Landlock on files and network, a filter of system
//! calls. What is locked stays so for everything that the process starts. Nothing here can be undone from inside.

use super::{Cell, HARNESS, LOCKED, Locks, REFUSED};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The process was not locked, or Python did not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LockError(String);

/// Enters the cell that `text` describes and does not come back. An error has been told to who waits for an answer.
pub fn enter(text: &str) -> LockError {
    let error = match pawl_record::from_json::<Cell>(text.as_bytes()) {
        Ok(cell) => become_python(&cell),
        Err(why) => LockError(format!("this is no cell: {why}")),
    };
    tell(&format!("{REFUSED}{error}"));
    // A socket that is closed with something unread loses what was said on it.
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    error
}

/// Says something to who waits for an answer: descriptor 0 is a socket. If nobody listens there is nobody to tell.
fn tell(text: &str) {
    if let Ok(stdin) = std::io::stdin().as_fd().try_clone_to_owned() {
        let _ = std::fs::File::from(stdin).write_all(text.as_bytes());
    }
}

fn become_python(cell: &Cell) -> LockError {
    let locked = match cell.locks {
        Locks::Off => Ok(()),
        Locks::All | Locks::Available => lock(cell),
    };
    match locked {
        Err(why) => LockError(why),
        Ok(()) => {
            tell(LOCKED);
            let why =
                Command::new(&cell.python.program).args(["-I", "-S", "-B", "-c", HARNESS]).env_clear().exec();
            LockError(format!("python does not start: {why}"))
        }
    }
}

fn lock(cell: &Cell) -> Result<(), String> {
    let whole = cell.locks == Locks::All;
    let needed = |part: &str, done: Result<(), String>| match done {
        Err(why) if whole => Err(format!("{part}: {why}")),
        Err(_) | Ok(()) => Ok(()),
    };
    limits(cell)?;
    needed("Landlock", landlock(cell, whole))?;
    needed("seccomp", seccomp())
}

/// Descriptors that Python and a program may have open.
const MAX_FILES: u64 = 64;

fn limits(cell: &Cell) -> Result<(), String> {
    let seconds = cell.limits.seconds.ceil().max(1.0) as u64;
    for (resource, value) in [
        (Resource::As, cell.limits.memory),
        (Resource::Cpu, seconds),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        (Resource::Nofile, MAX_FILES),
        (Resource::Nproc, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ] {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, limit).map_err(|why| format!("{resource:?} cannot be limited: {why}"))?;
    }
    Ok(())
}

/// Only Python's own files can be read, only it and its loader be executed; no TCP, no signal and no abstract socket
/// reaches outside.
fn landlock(cell: &Cell, whole: bool) -> Result<(), String> {
    let said = |why: landlock::RulesetError| why.to_string();
    let abi = ABI::V6;
    let level = if whole { CompatLevel::HardRequirement } else { CompatLevel::BestEffort };
    let read = BitFlags::from(AccessFs::ReadFile) | AccessFs::ReadDir;
    let run = BitFlags::from(AccessFs::ReadFile) | AccessFs::Execute;
    let programs = [Some(&cell.python.program), cell.python.loader.as_ref()];
    let status = Ruleset::default()
        .set_compatibility(level)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(abi)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
        .and_then(|ruleset| ruleset.create())
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(&cell.python.reads, read)))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(programs.into_iter().flatten(), run)))
        .and_then(|ruleset| ruleset.restrict_self())
        .map_err(said)?;
    if status.ruleset == RulesetStatus::FullyEnforced {
        Ok(())
    } else {
        Err("the kernel enforces only a part".into())
    }
}

/// System calls of an interpreter that computes. Whatever is not here fails as not permitted.
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_getdents64,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_clock_nanosleep,
    libc::SYS_sysinfo,
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
];

/// Those of the older calls that C libraries of this processor still make.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[i64] = &[libc::SYS_arch_prctl, libc::SYS_stat, libc::SYS_lstat, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[i64] = &[];

/// `ioctl` requests: close on exec, and whether something is a terminal.
const IOCTLS: [u64; 2] = [0x5451, 0x5401];

fn seccomp() -> Result<(), String> {
    let said = |why: seccompiler::BackendError| why.to_string();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(|call| (*call, Vec::new())).collect();
    let when = |arg: u8, value: u64| {
        SeccompCondition::new(arg, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(said)
    };
    let ioctls = IOCTLS.into_iter().map(|request| when(1, request)).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, ioctls);
    // Limits may be read, not set.
    rules.insert(libc::SYS_prlimit64, vec![when(2, 0)?]);
    let arch = std::env::consts::ARCH.try_into().map_err(said)?;
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch).map_err(said)?;
    let program: BpfProgram = filter.try_into().map_err(said)?;
    seccompiler::apply_filter(&program).map_err(|why| why.to_string())
}
