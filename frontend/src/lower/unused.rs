//! Build arguments that nothing reads: most often their names are mistyped.

use crate::ast::{Command, Document};
use crate::lower::{Lowered, epoch};
use crate::options::BuildOptions;
use crate::parse::parse_trigger;
use crate::span::Lines;
use crate::suggest;

/// What to tell of build arguments that no ARG declares, those of triggers included; one sentence each.
///
/// BuildKit passes over them in silence.
pub fn unused_args(document: &Document, options: &BuildOptions, lowered: &[Lowered]) -> Vec<String> {
    let mut declared = Vec::new();
    for instruction in &document.instructions {
        match &instruction.command {
            Command::Onbuild(onbuild) => add_trigger(&onbuild.expression, &mut declared),
            command => add(command, &mut declared),
        }
    }
    for image in lowered.iter().filter_map(|lowered| lowered.base_image.as_ref()) {
        image.config.on_build.iter().for_each(|trigger| add_trigger(trigger, &mut declared));
    }
    let unused = options.build_args.keys().filter(|key| !is_builtin(key) && !declared.contains(key));
    let tell = |key: &String| {
        let near = suggest::nearest(key, declared.iter().map(String::as_str));
        format!("no ARG declares the build argument {key}{}", suggest::did_you_mean(near))
    };
    unused.map(tell).collect()
}

fn add(command: &Command, declared: &mut Vec<String>) {
    if let Command::Arg(arg) = command {
        declared.extend(arg.args.iter().map(|definition| definition.key.clone()));
    }
}

/// A trigger that cannot be read declares nothing.
fn add_trigger(text: &str, declared: &mut Vec<String>) {
    if let Ok(instruction) = parse_trigger(text, Lines::default()) {
        add(&instruction.command, declared);
    }
}

/// Whether an argument counts without an ARG.
fn is_builtin(key: &str) -> bool {
    let of_platform =
        |rest: &str| ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT", "STAGE"].contains(&rest);
    key == epoch::NAME
        || key.starts_with("BUILDKIT_")
        || key.to_ascii_lowercase().ends_with("_proxy")
        || ["BUILD", "TARGET"].iter().any(|side| key.strip_prefix(side).is_some_and(of_platform))
}
