//! `rbuild build`.

mod attest;
mod cache;
mod call;
mod context;
mod debug;
mod flags;
mod index;
mod layout;
mod metadata;
mod output;
mod policy;
mod resources;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use super::context::show;
use super::table::stdout;
use super::{Context, explain};
use crate::client::{BuildRequest, ClientError, Output, Services, ask, build, random_id};
use crate::progress::Mode;
use resources::OldResources;

/// Builds an image from a Dockerfile
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// Names the image, `NAME[:TAG]`; may be given several times
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// The Dockerfile [default: CONTEXT/Dockerfile]; `-` reads it from stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Sets an ARG, KEY=VALUE; KEY alone takes the environment's value
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    build_args: Vec<String>,
    /// Annotates the image: `[PLACE:]KEY=VALUE`, where PLACE is manifest (the default), manifest-descriptor, index or
    /// index-descriptor, several of them with commas, with `[PLATFORM]` where that matters
    #[arg(long = "annotation", value_name = "ANNOTATION")]
    annotations: Vec<String>,
    /// Adds a label, KEY=VALUE
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Where the result goes: `type=image|oci|docker|tar|local[,dest=PATH][,KEY=VALUE]`, or a directory
    #[arg(short, long = "output", value_name = "OUTPUT")]
    outputs: Vec<String>,
    /// Pushes the image to its registry
    #[arg(long)]
    push: bool,
    /// Keeps the image in the image store, besides other outputs
    #[arg(long)]
    load: bool,
    /// Runs every step again
    #[arg(long)]
    no_cache: bool,
    /// Runs the steps of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// A cache to look into: `type=keyed,url=s3://BUCKET/PREFIX` (or `gs://`, `azblob://`, `gha://`, `registry://`, `file://`), `type=registry,ref=NAME`,
    /// `type=local,src=DIR[,tag=TAG]`, `type=s3`, `type=azblob` or `type=gha`, or a NAME; may be given several times
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<String>,
    /// Where the build's cache goes: `type=keyed,url=URL` as above, `type=registry,ref=NAME`, `type=local,dest=DIR[,tag=TAG]`,
    /// `type=s3`, `type=azblob`, `type=gha` or `type=inline`; with `,mode=max` it holds all steps, with `type=keyed` and
    /// `,cache-mounts=all` cache mounts, too
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<String>,
    /// Asks registries for newer base images
    #[arg(long)]
    pull: bool,
    /// Platforms to build for, such as linux/amd64
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    platforms: Vec<String>,
    /// A secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME]
    #[arg(long = "secret", value_name = "SECRET")]
    secrets: Vec<String>,
    /// An SSH agent for RUN --mount=type=ssh: default or ID=SOCKET
    #[arg(long = "ssh", value_name = "AGENT")]
    ssh: Vec<String>,
    /// A named context: NAME= with a directory, docker-image://IMAGE, oci-layout://DIR, or a URL
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    build_contexts: Vec<String>,
    /// The network of RUN: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    network: String,
    /// Adds a line to /etc/hosts, HOST:IP
    #[arg(long = "add-host", value_name = "HOST:IP")]
    add_hosts: Vec<String>,
    /// Size of /dev/shm, such as 64m
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// The cgroup that those of steps lie in
    #[arg(long, value_name = "CGROUP")]
    cgroup_parent: Option<String>,
    /// What each step may use: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems
    #[arg(long = "resource", value_name = "NAME=VALUE")]
    resources: Vec<String>,
    #[command(flatten)]
    old_resources: OldResources,
    /// Resource limits, `NAME=SOFT[:HARD]`
    #[arg(long = "ulimit", value_name = "LIMIT")]
    ulimits: Vec<String>,
    /// Lets the build do more: network.host, security.insecure
    #[arg(long = "allow", value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Checks the Dockerfile instead of building it
    #[arg(long, conflicts_with = "call")]
    check: bool,
    /// Asks about the Dockerfile instead of building it: check, outline, targets or describe[,format=json]
    #[arg(long, value_name = "METHOD")]
    call: Option<String>,
    /// How progress is shown: auto, plain, tty, rawjson or quiet
    #[arg(long, value_name = "MODE", default_value = "auto", env = "BUILDKIT_PROGRESS", hide_env = true)]
    progress: Mode,
    /// Tells why each step runs instead of coming from the cache, while it does and at the end
    #[arg(long)]
    explain: bool,
    /// Shows no progress and prints the image id
    #[arg(short, long)]
    quiet: bool,
    /// Writes the image id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Writes what is known of the result to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Tells of the image how it was built: true, false, or options such as mode=max [default: false]
    #[arg(long, value_name = "OPTIONS")]
    provenance: Option<String>,
    /// Tells of the image what it holds, as a scanner finds it: true, false, or options such as generator=IMAGE [default: false]
    #[arg(long, value_name = "OPTIONS")]
    sbom: Option<String>,
    /// Tells something of the image, beside it: type=provenance[,mode=min|max] or type=sbom[,generator=IMAGE]
    #[arg(long, value_name = "type=TYPE")]
    attest: Vec<String>,
    #[command(flatten)]
    debug: debug::Flags,
    /// The directory to build from, a URL, or `-` for an archive or Dockerfile on stdin
    #[arg(value_name = "CONTEXT")]
    context: String,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let call = self.call()?;
        let quiet = self.quiet || self.progress == Mode::Quiet;
        let outputs = if call.is_some() { Vec::new() } else { self.outputs()? };
        if call.is_none() && outputs.is_empty() && self.outputs.is_empty() {
            warn(
                "neither a name (-t) nor an output (-o) was given: the result stays in the build cache only",
            );
        }
        let debug = self.debug.plan(self.reads_stdin())?;
        let mut sources = self.sources(std::io::stdin())?;
        // Lives until the build is over.
        let _stdin = sources.stdin.take();
        let mut attrs = self.attrs(call.as_ref(), &outputs)?;
        let caches = self.caches()?;
        let layout = index::layout(&outputs)?;
        attrs.extend(caches.attr().map(|json| ("cache-imports".to_owned(), json)));
        let mut request = self.request(sources, attrs, outputs)?;
        request.caches.clone_from(&caches.to);
        request.services.caches.clone_from(&caches.dirs);
        request.services.cache_directories.clone_from(&caches.keyed);
        request.services.export.clone_from(&layout);
        let client = context.connect().await?;
        let (progress, shown) = show(if quiet { Mode::Quiet } else { self.progress })?;
        if let Some(call) = call {
            let answered = ask(&client, request, progress).await;
            let _ = shown.await;
            return call.print(&answered?);
        }
        let reference = random_id()?;
        request.reference.clone_from(&reference);
        let built = match debug {
            Some(plan) => debug::build(&client, request, (progress, shown), plan).await,
            None => {
                let built = build(&client, request, progress).await;
                // Errors come after all progress.
                let _ = shown.await;
                built.map(Some)
            }
        };
        if self.explain {
            explain::after_build(&client, &reference).await;
        }
        let Some(outcome) = built? else { return Ok(ExitCode::FAILURE) };
        caches.finish(&outcome.response)?;
        if let Some(dir) = &layout {
            index::finish(dir, &outcome.response)?;
        }
        let id = metadata::image_id(&outcome.response);
        if let Some(path) = &self.iidfile {
            fs_err::write(path, id.unwrap_or_default()).map_err(|e| ClientError::io(path, e))?;
        }
        if let Some(path) = &self.metadata_file {
            metadata::write(path, &outcome)?;
        }
        if let (true, Some(id)) = (quiet, id) {
            stdout(&format!("{id}\n"))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn reads_stdin(&self) -> bool {
        self.context == "-" || self.file.as_deref() == Some(std::path::Path::new("-"))
    }

    fn request(
        &self,
        sources: context::Sources,
        mut attrs: BTreeMap<String, String>,
        outputs: Vec<Output>,
    ) -> Result<BuildRequest, ClientError> {
        attrs.extend(sources.attrs);
        for cap in sources.caps {
            let caps = attrs.entry("frontend.caps".to_owned()).or_default();
            let comma = if caps.is_empty() { "" } else { "," };
            *caps = format!("{caps}{comma}{cap}");
        }
        let services = Services { layouts: sources.layouts, uploads: sources.uploads, ..self.services()? };
        Ok(BuildRequest {
            frontend: "dockerfile.v0".to_owned(),
            attrs,
            dirs: sources.dirs,
            outputs,
            entitlements: self.entitlements(),
            source_policy: policy::from_environment()?,
            caches: Vec::new(),
            services,
            reference: String::new(),
            explain: self.explain,
        })
    }
}

/// A line on stderr that is no error.
pub(super) fn warn(text: &str) {
    use std::io::Write as _;
    // Without stderr there is nobody to warn.
    let _ = writeln!(std::io::stderr(), "WARNING: {text}");
}
