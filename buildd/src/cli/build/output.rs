//! `-o`, `--push`, `--load`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;

use frontend::number::boolean;

use super::Args;
use crate::cli::context::absolute;
use crate::cli::csv::pairs;
use crate::client::{ClientError, Destination, Output};
use crate::csv::fields;

impl Args {
    /// What to make of the result.
    pub(super) fn outputs(&self) -> Result<Vec<Output>, ClientError> {
        let mut outputs = Vec::new();
        for text in &self.outputs {
            outputs.extend(parse(text)?);
        }
        let kept = outputs.iter().any(|output| output.kind == "image");
        if !kept && (self.push || self.load || self.outputs.is_empty() && !self.tags.is_empty()) {
            outputs.push(Output {
                kind: "image".into(),
                attrs: BTreeMap::new(),
                destination: Destination::None,
            });
        }
        for output in &mut outputs {
            let named = matches!(output.kind.as_str(), "image" | "oci" | "docker");
            if named && !self.tags.is_empty() && !output.attrs.contains_key("name") {
                output.attrs.insert("name".into(), self.tags.join(","));
            }
            if named {
                for text in &self.annotations {
                    output.attrs.extend(annotation(text)?);
                }
            }
            if output.kind == "image" && self.push {
                output.attrs.insert("push".into(), "true".into());
            }
            if output.kind == "image" && !self.tags.is_empty() {
                // Who names an image finds it under that name here, pushed or not.
                output.attrs.entry("store".into()).or_insert_with(|| "true".into());
            }
        }
        match self.push && self.tags.is_empty() && !outputs.iter().any(|o| o.attrs.contains_key("name")) {
            true => Err(ClientError::Usage("`--push` needs a name (`-t NAME`)".into())),
            false => Ok(outputs),
        }
    }
}

/// The exporter's attributes for one `--annotation`.
fn annotation(text: &str) -> Result<Vec<(String, String)>, ClientError> {
    let bad = |why: &str| ClientError::Usage(format!("invalid value `{text}` for `--annotation`: {why}"));
    let (name, value) = text.split_once('=').ok_or_else(|| bad("want [PLACE:]KEY=VALUE"))?;
    let (places, key) = name.split_once(':').map_or(("", name), |(places, key)| (places, key));
    let one = |place: &str| {
        let kind = place.split('[').next().unwrap_or_default();
        match kind {
            "" => Ok((format!("annotation.{key}"), value.to_owned())),
            "index" | "index-descriptor" | "manifest" | "manifest-descriptor" => {
                Ok((format!("annotation-{place}.{key}"), value.to_owned()))
            }
            other => Err(bad(&format!("unknown annotation type \"{other}\""))),
        }
    };
    places.split(',').map(one).collect()
}

/// One `-o`; `None` for `type=cacheonly`.
fn parse(text: &str) -> Result<Option<Output>, ClientError> {
    let plain = !text.is_empty() && fields(text)?.len() == 1 && !text.contains('=');
    if plain {
        let (kind, destination) = match text {
            "-" => ("tar", Destination::Stdout),
            dir => ("local", Destination::Directory(absolute(Path::new(dir))?)),
        };
        return Ok(Some(Output { kind: kind.into(), attrs: BTreeMap::new(), destination }));
    }
    let mut attrs: BTreeMap<String, String> = pairs("--output", text)?.into_iter().collect();
    let kind =
        attrs.remove("type").ok_or_else(|| ClientError::Usage(format!("`--output {text}` has no type")))?;
    let dest = attrs.remove("dest");
    let output =
        |kind: &str, attrs, destination| Ok(Some(Output { kind: kind.to_owned(), attrs, destination }));
    match (kind.as_str(), dest) {
        ("cacheonly", _) => Ok(None),
        ("registry", _) => {
            attrs.insert("push".into(), "true".into());
            output("image", attrs, Destination::None)
        }
        // Docker's own image store is where buildx would load it to; ours is where images are.
        ("image", _) | ("docker", None) => output("image", attrs, Destination::None),
        ("local", None) => Err(ClientError::Usage("`--output type=local` needs `dest=DIR`".into())),
        ("local", Some(dir)) => output("local", attrs, Destination::Directory(absolute(Path::new(&dir))?)),
        ("oci" | "docker" | "tar", dest) => {
            let directory = kind != "tar" && attrs.get("tar").is_some_and(|v| boolean(v) == Some(false));
            let destination = match dest.as_deref() {
                Some(dir) if directory => Destination::Layout(absolute(Path::new(dir))?),
                _ if directory => {
                    return Err(ClientError::Usage(format!(
                        "`--output type={kind},tar=false` needs `dest=DIR`"
                    )));
                }
                None | Some("-") if std::io::stdout().is_terminal() => {
                    return Err(ClientError::Usage(format!(
                        "`--output type={kind}` would write to the terminal; add `dest=FILE`"
                    )));
                }
                None | Some("-") => Destination::Stdout,
                Some(path) => Destination::File(absolute(Path::new(path))?),
            };
            output(&kind, attrs, destination)
        }
        _ => Err(ClientError::Usage(format!("unknown output type `{kind}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(args: Args) -> Vec<Output> {
        args.outputs().unwrap()
    }

    fn args(outputs: &[&str], tags: &[&str]) -> Args {
        let own = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        Args { outputs: own(outputs), tags: own(tags), ..Args::default() }
    }

    #[test]
    fn a_name_alone_goes_to_the_image_store() {
        let made = outputs(args(&[], &["a", "b:c"]));
        assert_eq!(made.len(), 1);
        assert_eq!((made[0].kind.as_str(), made[0].attrs["name"].as_str()), ("image", "a,b:c"));
        assert!(outputs(args(&[], &[])).is_empty());
    }

    #[test]
    fn an_archive_takes_the_name_and_nothing_is_kept() {
        let made = outputs(args(&["type=oci,dest=/x/f"], &["a"]));
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].attrs["name"], "a");
        assert_eq!(made[0].destination, Destination::File("/x/f".into()));
    }

    #[test]
    fn shorthands() {
        assert_eq!(outputs(args(&["out"], &[]))[0].kind, "local");
        assert_eq!(outputs(args(&["type=registry"], &["a"]))[0].attrs["push"], "true");
        assert_eq!(outputs(args(&["type=docker"], &["a"]))[0].kind, "image");
        assert!(outputs(args(&["type=cacheonly"], &[])).is_empty());
        let layout = &outputs(args(&["type=oci,dest=/x,tar=false"], &["a"]))[0];
        assert_eq!(layout.destination, Destination::Layout("/x".into()));
        let pushed = outputs(Args { push: true, ..args(&["type=tar,dest=/x/t"], &["a"]) });
        assert_eq!(pushed.iter().map(|o| o.kind.as_str()).collect::<Vec<_>>(), ["tar", "image"]);
    }

    #[test]
    fn annotations_go_to_images() {
        let given = ["a=1", "index,manifest[linux/arm64]:b.c=x=y"].map(str::to_owned).to_vec();
        let made =
            outputs(Args { annotations: given, ..args(&["type=oci,dest=/x/f", "type=tar,dest=/x/t"], &[]) });
        assert_eq!(made[0].attrs["annotation.a"], "1");
        assert_eq!(made[0].attrs["annotation-index.b.c"], "x=y");
        assert_eq!(made[0].attrs["annotation-manifest[linux/arm64].b.c"], "x=y");
        assert!(made[1].attrs.is_empty(), "files have no annotations");
        for bad in ["a", "blob:a=1"] {
            let args = Args { annotations: vec![bad.to_owned()], ..args(&[], &["a"]) };
            assert!(args.outputs().is_err(), "{bad}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["type=x", "dest=/x", "type=local", "type=oci,tar=false", "a,b"] {
            assert!(args(&[bad], &[]).outputs().is_err(), "{bad}");
        }
        assert!(Args { push: true, ..args(&[], &[]) }.outputs().is_err());
    }
}
