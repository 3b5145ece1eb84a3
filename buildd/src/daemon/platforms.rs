//! Whether a result is for the platforms that were asked for; BuildKit's words (`exporter/verifier`).

use std::collections::BTreeSet;

use cache::oci::Platform;

use super::export::Results;
use super::failure::Failure;
use super::sources::image::oci_platform;

/// What is told where it is not: `wanted` is what the request says, separated by commas.
///
/// # Errors
/// Results for several platforms that are not named.
pub(super) fn mismatch(wanted: Option<&String>, results: &Results) -> Result<Vec<String>, Failure> {
    if results.built.is_empty() && !results.metadata.names_platforms() {
        return Ok(Vec::new());
    }
    let built = results.built.iter().map(|built| oci_platform(&built.platform)).collect::<Vec<_>>();
    Ok(warnings(wanted.map(String::as_str), &built, results.multi_platform))
}

fn warnings(wanted: Option<&str>, built: &[Platform], multi_platform: bool) -> Vec<String> {
    let host = Platform::host().to_string();
    let names: Vec<&str> = wanted.unwrap_or(&host).split(',').collect();
    let (mut asked, mut warnings) = (BTreeSet::new(), Vec::new());
    for name in &names {
        match name.parse::<Platform>() {
            Ok(platform) => {
                if !asked.insert(platform.normalized().full()) {
                    warnings.push(format!("Duplicate platform result requested {name:?}"));
                }
            }
            Err(e) => warnings.push(format!("Invalid platform result requested {name:?}: {e}")),
        }
    }
    if !warnings.is_empty() {
        return warnings;
    }
    let is = |platform: &Platform| {
        // Who asks rarely names the build of Windows that the result is for.
        let short = Platform { os_version: None, ..platform.clone() };
        [platform, &short].into_iter().any(|p| asked.contains(&p.normalized().full()))
    };
    let list = |all: BTreeSet<String>| all.into_iter().collect::<Vec<_>>().join(",");
    match built {
        [only] if asked.len() == 1 => match is(only) {
            true => Vec::new(),
            false => vec![format!(
                "Requested platform {:?} does not match result platform {:?}",
                names[0],
                only.normalized().full()
            )],
        },
        _ if !multi_platform && asked.len() > 1 => {
            vec!["Multiple platforms requested but result is not multi-platform".to_owned()]
        }
        all if all.len() == asked.len() && all.iter().all(is) => Vec::new(),
        all => {
            let made = all.iter().map(|platform| platform.normalized().full()).collect();
            vec![format!("Requested platforms {} do not match result platforms {}", list(asked), list(made))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_compared() {
        let check = |wanted: Option<&str>, built: &[&str], multi: bool| {
            let built: Vec<Platform> = built.iter().map(|name| name.parse().unwrap()).collect();
            warnings(wanted, &built, multi).join("; ")
        };
        let host = Platform::host().to_string();
        for (wanted, built, multi) in [
            (None, &[&host[..]][..], false),
            (Some("linux/arm64"), &["linux/arm64/v8"], false),
            (Some("linux/amd64,linux/arm64"), &["linux/arm64", "linux/amd64"], true),
            (Some("windows/amd64"), &["windows(10.0.17763)/amd64"], false),
        ] {
            assert_eq!(check(wanted, built, multi), "", "{wanted:?} {built:?}");
        }
        for (wanted, built, multi, told) in [
            (
                "linux/amd64,linux/arm64",
                &["linux/amd64"][..],
                false,
                "Multiple platforms requested but result is not",
            ),
            (
                "linux/arm64",
                &["linux/s390x"],
                false,
                "\"linux/arm64\" does not match result platform \"linux/s390x\"",
            ),
            (
                "linux/arm64,linux/arm64",
                &["linux/arm64"],
                false,
                "Duplicate platform result requested \"linux/arm64\"",
            ),
            ("linux/?", &["linux/arm64"], false, "Invalid platform result requested \"linux/?\""),
            (
                "linux/amd64,linux/arm64",
                &["linux/amd64", "linux/s390x"],
                true,
                "do not match result platforms linux/amd64,linux/s390x",
            ),
        ] {
            let warnings = check(Some(wanted), built, multi);
            assert!(warnings.contains(told), "{wanted} {built:?}: {warnings}");
        }
    }
}
