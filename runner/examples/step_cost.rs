//! Measures what a step costs: spawn, run `true`, wait. `step_cost ROOTFS [none|isolated|host] [COUNT] [SCRIPT]`, as root.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use runner::overlay::{Overlay, Upper, Way};
use runner::{Launcher, LauncherConfig, NetworkMode, RootFs, RunnerError, SandboxSpec, Stdio};

fn main() -> ExitCode {
    runner::launcher_main();
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Box<dyn std::error::Error>> {
    runner::rootless::enter()?;
    let args: Vec<String> = std::env::args().collect();
    let base =
        PathBuf::from(args.get(1).ok_or("usage: step_cost ROOTFS [none|isolated|host] [COUNT] [SCRIPT]")?);
    let network = match args.get(2).map(String::as_str) {
        Some("isolated") => NetworkMode::Isolated,
        Some("host") => NetworkMode::Host,
        _ => NetworkMode::None,
    };
    let count: u32 = args.get(3).map_or(Ok(200), |n| n.parse())?;
    let launcher = Launcher::start(LauncherConfig { id: "cost".to_owned(), program: None })?;
    let scratch = std::env::temp_dir().join(format!("step-cost-{}", std::process::id()));
    let probe = scratch.join("probe");
    std::fs::create_dir_all(&probe)?;
    let overlays = runner::overlay::probe(&probe, &Way::ALL)?;
    let mut times = Vec::new();
    for n in 0..count {
        let (dir, work) = (scratch.join(format!("u{n}")), scratch.join(format!("w{n}")));
        std::fs::create_dir_all(&dir)?;
        std::fs::create_dir_all(&work)?;
        let root = RootFs::Overlay(Overlay { lower: vec![base.clone()], upper: Some(Upper { dir, work }) });
        let command = match args.get(4) {
            Some(script) => vec!["/bin/sh".to_owned(), "-c".to_owned(), script.clone()],
            None => vec!["/bin/true".to_owned()],
        };
        let mut spec = SandboxSpec { network, overlays, ..SandboxSpec::new(root, command) };
        spec.limits.pids = std::env::var("PIDS").ok().and_then(|n| n.parse().ok());
        let start = Instant::now();
        step(&launcher, &spec)?;
        times.push(start.elapsed().as_micros());
    }
    std::fs::remove_dir_all(&scratch)?;
    let first = times.first().copied().unwrap_or_default();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    eprintln!(
        "{count} steps, microseconds: first {first}, median {}, 90 % {}, worst {}",
        at(50),
        at(90),
        at(99)
    );
    Ok(())
}

fn step(launcher: &Launcher, spec: &SandboxSpec) -> Result<(), RunnerError> {
    let inherit = || std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned().ok();
    let exit = launcher.spawn(spec, Stdio { stdin: None, stdout: inherit(), stderr: inherit() })?.wait()?;
    if !exit.status.success() {
        eprintln!("exit code {}", exit.status.code());
    }
    Ok(())
}
