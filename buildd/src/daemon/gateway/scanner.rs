//! Scanners: images that look into a result and write down what is in it (an SBOM).

use std::collections::BTreeMap;
use std::sync::Arc;

use cache::oci::ImageMetadata;
use prost::Message as _;
use proto::gateway::ResolveImageConfigRequest;
use proto::pb::{self, Definition};
use sha2::{Digest as _, Sha256};
use solver::{Graph, Need, Output};
use tonic::Code;

use super::Bridge;
use crate::daemon::claims::Scans;
use crate::daemon::definition;
use crate::daemon::failure::Failure;
use crate::daemon::parts::Parts;
use crate::daemon::provenance::SbomOptions;
use crate::daemon::run::Run;
use crate::daemon::sources::image::host_platform;
use crate::llb::{to_definition, to_platform};

/// Where a scanner finds what it is to scan, and where it leaves what it found.
const CORE: &str = "/run/src/core/sbom";
const EXTRAS: &str = "/run/src/extras";
const DESTINATION: &str = "/run/out";

/// How scanners are run in a build.
#[derive(Debug)]
pub(in crate::daemon) struct Scanner {
    /// The image, as it is shown.
    name: String,
    args: Vec<String>,
    env: Vec<String>,
    cwd: String,
    ignore_cache: bool,
}

impl Scanner {
    /// Finds the scanner that is the image `generator`; `attrs` are the frontend's attributes.
    ///
    /// # Errors
    /// An image that cannot be had, or runs nothing.
    pub(in crate::daemon) async fn new(
        parts: &Arc<Parts>,
        run: &Arc<Run>,
        generator: &str,
        options: &SbomOptions,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Self, Failure> {
        let bridge = Bridge::new(parts, run, BTreeMap::new(), Arc::default(), Arc::default());
        let image = bridge.image_config(ResolveImageConfigRequest {
            r#ref: generator.to_owned(),
            platform: Some(to_platform(&host_platform())),
            resolve_mode: attrs.get("image-resolve-mode").cloned().unwrap_or_default(),
            ..ResolveImageConfigRequest::default()
        });
        let image = image.await?;
        let name = image.r#ref;
        let metadata: ImageMetadata = serde_json::from_slice(&image.config).map_err(|e| {
            Failure::new(Code::InvalidArgument, format!("invalid image config of {name}: {e}"))
        })?;
        let config = metadata.config;
        let args: Vec<String> = config.entrypoint.into_iter().chain(config.cmd).collect();
        if args.is_empty() {
            return Err(Failure::new(Code::InvalidArgument, format!("scanner {name} does not have cmd")));
        }
        let mut env = config.env;
        env.push(format!("BUILDKIT_SCAN_DESTINATION={DESTINATION}/"));
        env.push(format!("BUILDKIT_SCAN_SOURCE={CORE}"));
        let told = |(key, value): (&String, &String)| format!("BUILDKIT_SCAN_{key}={value}");
        env.extend(options.parameters.iter().map(told));
        let cwd = format!("/{}", config.working_dir.trim_start_matches('/'));
        let ignore_cache = attrs.get("no-cache").is_some_and(String::is_empty);
        Ok(Self { name, args, env, cwd, ignore_cache })
    }

    /// Scans the result of a platform; gives the files that the scanner left.
    ///
    /// # Errors
    /// A scanner that fails.
    pub(in crate::daemon) async fn scan(
        &self,
        parts: &Parts,
        run: &Run,
        platform: &str,
        result: &Graph,
        scans: &Scans,
    ) -> Result<Output, Failure> {
        let graph = definition::load(parts, run, &self.definition(platform, result, scans)).await?;
        run.evaluate(&Arc::new(graph), Need::Present).await
    }

    fn definition(&self, platform: &str, result: &Graph, scans: &Scans) -> Definition {
        let mut made = Definition::default();
        let mut exec = pb::Op::default();
        let identifier = format!("docker-image://{}", self.name);
        let image = pb::Op {
            op: Some(pb::op::Op::Source(pb::SourceOp { identifier, ..pb::SourceOp::default() })),
            platform: Some(to_platform(&host_platform())),
            ..pb::Op::default()
        };
        exec.inputs.push(pb::Input { digest: put(&mut made, &image), index: 0 });
        let mount = |dest: String, input: i64, output: i64| pb::Mount {
            dest,
            input,
            output,
            readonly: input > 0,
            ..pb::Mount::default()
        };
        let mut mounts = vec![mount("/".to_owned(), 0, -1), mount(DESTINATION.to_owned(), -1, 0)];
        mounts
            .push(pb::Mount { mount_type: pb::MountType::Tmpfs.into(), ..mount("/tmp".to_owned(), -1, -1) });
        let extra = |(name, graph)| (format!("{EXTRAS}/sbom-{name}"), graph);
        let extras = scans.extras.iter().map(|(name, graph)| extra((name, graph)));
        for (dest, graph) in std::iter::once((CORE.to_owned(), result)).chain(extras) {
            let input = add(&mut made, to_definition(graph)).map(|input| {
                exec.inputs.push(input);
                exec.inputs.len() as i64 - 1
            });
            mounts.push(pb::Mount { readonly: true, ..mount(dest, input.unwrap_or(-1), -1) });
        }
        let mut env = self.env.clone();
        if !scans.extras.is_empty() {
            env.push(format!("BUILDKIT_SCAN_SOURCE_EXTRAS={EXTRAS}"));
        }
        let meta = pb::Meta { args: self.args.clone(), env, cwd: self.cwd.clone(), ..pb::Meta::default() };
        exec.op = Some(pb::op::Op::Exec(pb::ExecOp { meta: Some(meta), mounts, ..pb::ExecOp::default() }));
        exec.platform = Some(to_platform(&host_platform()));
        let digest = put(&mut made, &exec);
        let title = format!("[{platform}] generating sbom using {}", self.name);
        let metadata = pb::OpMetadata {
            ignore_cache: self.ignore_cache || scans.ignore_cache,
            description: [("llb.customname".to_owned(), title)].into(),
            ..pb::OpMetadata::default()
        };
        made.metadata.insert(digest.clone(), metadata);
        put(&mut made, &pb::Op { inputs: vec![pb::Input { digest, index: 0 }], ..pb::Op::default() });
        made
    }
}

/// Adds an operation; gives its digest.
fn put(made: &mut Definition, op: &pb::Op) -> String {
    let bytes = op.encode_to_vec();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
    made.def.push(bytes.into());
    digest
}

/// Adds what a definition builds; gives its result, which is none of an empty one.
fn add(made: &mut Definition, mut other: Definition) -> Option<pb::Input> {
    let last = pb::Op::decode(other.def.pop()?).ok()?;
    made.metadata.extend(other.metadata);
    for op in other.def {
        if !made.def.contains(&op) {
            made.def.push(op);
        }
    }
    last.inputs.into_iter().next()
}

#[cfg(test)]
mod tests {
    use solver::Op;
    use solver::op::MountKind;

    use super::*;

    fn graph(name: &str) -> Graph {
        let op = pb::op::Op::Source(pb::SourceOp {
            identifier: format!("local://{name}"),
            ..pb::SourceOp::default()
        });
        let mut made = Definition::default();
        let digest = put(&mut made, &pb::Op { op: Some(op), ..pb::Op::default() });
        put(&mut made, &pb::Op { inputs: vec![pb::Input { digest, index: 0 }], ..pb::Op::default() });
        crate::llb::from_definition(&made).unwrap()
    }

    #[test]
    fn what_is_scanned() {
        let scanner = Scanner {
            name: "docker.io/library/s:1".to_owned(),
            args: vec!["scan".to_owned()],
            env: Vec::new(),
            cwd: "/".to_owned(),
            ignore_cache: false,
        };
        let scans = Scans {
            extras: vec![("context".to_owned(), graph("c")), ("a".to_owned(), graph("r"))],
            ignore_cache: true,
        };
        let scanned = crate::llb::from_definition(&scanner.definition("p", &graph("r"), &scans)).unwrap();
        let exec = scanned.vertex(scanned.head.unwrap().vertex);
        assert_eq!(exec.meta.custom_name(), Some("[p] generating sbom using docker.io/library/s:1"));
        assert!(exec.meta.ignore_cache);
        let Op::Exec(op) = &exec.op else { panic!("{exec:?}") };
        let dests: Vec<&str> = op.mounts.iter().map(|mount| &mount.dest[..]).collect();
        let extras = ["/run/src/extras/sbom-context", "/run/src/extras/sbom-a"];
        assert_eq!(dests, ["/", "/run/out", "/tmp", CORE, extras[0], extras[1]]);
        assert!(matches!(op.mounts[2].kind, MountKind::Tmpfs { .. }));
        assert_eq!(op.mounts[3].input.map(|i| exec.inputs[i]), op.mounts[5].input.map(|i| exec.inputs[i]));
        let extras = "BUILDKIT_SCAN_SOURCE_EXTRAS=/run/src/extras";
        assert!(op.meta.env.iter().any(|env| &**env == extras), "{:?}", op.meta.env);
        // Of nothing, too.
        let empty = scanner.definition("p", &Graph::default(), &Scans::default());
        assert_eq!(crate::llb::from_definition(&empty).unwrap().vertices().len(), 2);
    }
}
