//! RUN, and the command lines of CMD and ENTRYPOINT.

use crate::ast::{Command, CommandLine, Network, RunCommand, Security};
use crate::mount::{Device, Mount};
use crate::parse::flags::{Flags, Kind};
use crate::parse::problem::Problem;
use crate::parse::typed::Request;
use crate::quote::quote;
use crate::suggest;

pub(super) fn cmd(request: Request<'_>) -> Result<CommandLine, Vec<Problem>> {
    request.no_flags()?;
    Ok(line(request))
}

/// The exec form as it is; the shell form as one string, or nothing.
fn line(request: Request<'_>) -> CommandLine {
    CommandLine { words: request.args().to_vec(), shell: !request.statement.json }
}

pub(super) fn run(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    let flags = request.flags(&[
        ("device", Kind::Texts),
        ("mount", Kind::Texts),
        ("network", Kind::Text),
        ("security", Kind::Text),
    ])?;
    let devices = flags.texts("device");
    let devices: Result<Vec<Device>, Vec<Problem>> = devices
        .iter()
        .map(|value| Device::parse(value).map_err(|error| vec![Problem::new(error.to_string()).about(value)]))
        .collect();
    let devices = devices?;
    let mounts = flags.texts("mount");
    for mount in &mounts {
        Mount::check(mount).map_err(|error| vec![Problem::new(error.to_string()).about(mount)])?;
    }
    Ok(Command::Run(RunCommand {
        line: line(request),
        mounts,
        network: network(&flags)?,
        security: security(&flags)?,
        devices,
        flags_used: flags.used(),
    }))
}

fn network(flags: &Flags) -> Result<Network, Vec<Problem>> {
    match flags.value("network") {
        None | Some("default") => Ok(Network::Default),
        Some("none") => Ok(Network::None),
        Some("host") => Ok(Network::Host),
        Some(other) => {
            let near = suggest::did_you_mean(suggest::nearest(other, ["default", "none", "host"]));
            let problem = Problem::new(format!("invalid network mode {}{near}", quote(other))).about(other);
            Err(vec![problem.hint("the mode is `default`, `none` or `host`")])
        }
    }
}

fn security(flags: &Flags) -> Result<Security, Vec<Problem>> {
    match flags.value("security") {
        None | Some("sandbox") => Ok(Security::Sandbox),
        Some("insecure") => Ok(Security::Insecure),
        Some(other) => {
            let near = suggest::did_you_mean(suggest::nearest(other, ["sandbox", "insecure"]));
            let problem = Problem::new(format!("security {} is not valid{near}", quote(other))).about(other);
            Err(vec![problem.hint("it is `sandbox` or `insecure`")])
        }
    }
}
