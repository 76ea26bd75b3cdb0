//! The command line of pawl: arguments in, answers and exit codes out. Everything that is worth
//! testing without a process lives in the other crates.

mod args;
mod brief;
mod campaign;
mod commands;
mod compiling;
mod desk;
mod errors;
mod interrupt;
mod lab;
mod live;
mod machine;
mod output;
mod prepare;
mod progress;
mod providers;
mod recipes;
mod rescore;

use args::{Cli, Command, Data, EffectsAction};
use clap::Parser;
use errors::{Exit, Failure};
use output::Answer;
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => {
            // Help and version end here too, with their text on stdout.
            let _ = said.print();
            return ExitCode::from(said.exit_code() as u8);
        }
    };
    let json = wants_json(&cli.command);
    match errors::without_panics(|| run(cli.command)) {
        Ok(answer) => {
            let code = if answer.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            match answer.print(json) {
                Ok(()) => code,
                // The reader has gone, as `head` does: it has what it wanted.
                Err(why) if why.kind() == io::ErrorKind::BrokenPipe => code,
                Err(why) => end(&Failure::new("the answer cannot be written").caused_by(&why)),
            }
        }
        Err(failure) => end(&failure),
    }
}

fn run(command: Command) -> Result<Answer, Failure> {
    match command {
        Command::Research(args) => commands::research::run(args),
        Command::Train(args) => commands::train::run(args),
        Command::Check(args) => commands::check::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Import(args) => commands::import::run(args),
        Command::Export(args) => commands::export::run(args),
        Command::Sft(args) => commands::sft::run(args),
        Command::Rl(args) => commands::rl::run(args),
        Command::Chat(args) => commands::chat::run(args),
        Command::SandboxCell(args) => Err(sandbox_cell(&args.cell)),
        Command::Sample(args) => commands::sample::run(args),
        Command::Serve(args) => commands::serve::run(args),
        Command::Mcp(args) => commands::mcp::run(args),
        Command::Runs(args) => commands::runs::run(args),
        Command::Show(args) => commands::show::run(args),
        Command::Diff(args) => commands::diff::run(args),
        Command::Researchers(args) => commands::researchers::run(args),
        Command::Report(args) => commands::report::run(args),
        Command::Verify(args) => commands::verify::run(args),
        Command::Replicate(args) => commands::replicate::run(args),
        Command::Retract(args) => commands::retract::run(args),
        Command::Effects(args) => commands::effects::run(args),
        Command::Data(args) => commands::data::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
    }
}

/// Only comes back where the process cannot be locked in.
#[cfg(target_os = "linux")]
fn sandbox_cell(cell: &str) -> Failure {
    Failure::from(pawl_eval::sandbox::enter(cell))
}

#[cfg(not(target_os = "linux"))]
fn sandbox_cell(_cell: &str) -> Failure {
    Failure::new("the sandbox is built on Landlock and seccomp, which this system has not")
}

fn wants_json(command: &Command) -> bool {
    match command {
        Command::Research(args) => args.place.json,
        Command::Train(args) => args.place.json,
        Command::Check(args) => args.json,
        Command::Eval(args) => args.place.json,
        Command::Import(args) => args.place.json,
        Command::Export(args) => args.place.json,
        Command::Sft(args) => args.lesson.place.json,
        Command::Rl(args) => args.lesson.place.json,
        Command::Chat(args) => args.place.json,
        Command::SandboxCell(_) => false,
        Command::Sample(args) => args.place.json,
        Command::Serve(args) => args.place.json,
        Command::Mcp(_) => false,
        Command::Runs(args) => args.place.json,
        Command::Show(args) => args.place.json,
        Command::Diff(args) => args.place.json,
        Command::Researchers(args) => args.place.json,
        Command::Report(args) => args.place.json,
        Command::Verify(args) => args.place.json,
        Command::Replicate(args) => args.place.json,
        Command::Retract(args) => args.place.json,
        Command::Effects(args) => match &args.action {
            None => args.place.json,
            Some(EffectsAction::Export(args) | EffectsAction::Import(args)) => args.place.json,
            Some(EffectsAction::Revoke(args)) => args.place.json,
        },
        Command::Data(Data::Add(args)) => args.place.json,
        Command::Data(Data::List(args)) => args.place.json,
        Command::Data(Data::Show(args) | Data::Check(args)) => args.place.json,
        Command::Bench(args) => match &args.of {
            Some(args::BenchOf::Researchers(args)) => args.place.json,
            Some(args::BenchOf::Lessons(args)) => args.place.json,
            None => args.json,
        },
        Command::Doctor(args) => args.place.json,
    }
}

fn end(failure: &Failure) -> ExitCode {
    // The text ends with a line break of its own.
    output::narrate(failure.to_string().trim_end());
    ExitCode::from(match failure.exit() {
        Exit::Failed => 1,
        Exit::Misused => 2,
    })
}
