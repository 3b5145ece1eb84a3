//! The built-in scanner: reads what is installed in a result, and says so (SPDX).

use cache::layer::Base;
use cache::tree::{Kind, TreePath};
use cache::view::ViewError;
use solver::{ExecError, Need, Output};
use tokio_util::sync::CancellationToken;

use super::about;
use super::blocking::blocking;
use super::chains::from_store;
use super::claims::Told;
use super::export::{Built, EpochChoice};
use super::failure::Failure;
use super::parts::Parts;
use super::run::Run;
use super::sources::image::oci_platform;
use crate::causes::causes;
use crate::sbom::{FileKind, Inventory, Origin, OsRelease, document};

/// What the SBOM of a result is called; those of what it was made of are called after it.
const NAME: &str = "sbom";
/// More files are not read.
const MOST_FILES: usize = 100_000;
/// A larger `os-release` is none, in bytes.
const OS_RELEASE_LIMIT: u64 = 64 << 10;
/// Directories that the kernel fills, or that should be empty in images.
const KERNELS: [&[u8]; 3] = [b"dev", b"proc", b"sys"];

/// What is in a result, and in what else its Dockerfile says that the SBOM is to cover; `epoch` is the build's, if that is
/// given one.
///
/// # Errors
/// A step that has to run again and fails, a layer that is gone.
pub(super) async fn scan(
    parts: &Parts,
    run: &Run,
    built: &Built,
    epoch: Option<EpochChoice>,
) -> Result<Vec<Told>, Failure> {
    let Some(made) = &built.made else { return Ok(Vec::new()) };
    let platform = oci_platform(&built.platform).full();
    let step = run.teller.step(&format!("[{platform}] generating sbom"));
    let epoch = epoch.unwrap_or_default().apply(built.epoch);
    let scan = async {
        let extras =
            built.scans.extras.iter().map(|(name, graph)| (format!("{NAME}-{name}"), graph.clone().into()));
        let all = std::iter::once((NAME.to_owned(), made.graph.clone())).chain(extras);
        let (mut told, mut warnings) = (Vec::new(), Vec::new());
        for (name, graph) in all {
            let output = run.evaluate(&graph, Need::Present).await?;
            let base = parts.chains.base(&output).map_err(|e| Failure::of_export(&e))?;
            let created = match epoch {
                Some(epoch) => epoch,
                None => newest(parts, &output).map_err(|e| Failure::of_export(&e))?,
            };
            let (cancel, core) = (run.cancel.clone(), told.is_empty());
            let found = blocking(move || {
                let (inventory, warnings) = inventory(&base, &cancel)?;
                let tool = format!("rbuild-{}", about::version().version);
                let origin = Origin { name: &name, created, tool: &tool };
                Ok::<_, ExecError>((Told::sbom(&name, document(origin, &inventory), core), warnings))
            });
            let (one, more) = found.await.map_err(|e| Failure::of_export(&e))?;
            told.push(one);
            warnings.extend(more);
        }
        step.warn(&warnings);
        Ok(told)
    };
    let done = scan.await;
    step.end(done)
}

/// When the newest layer was made, in seconds since 1970: so the same files are told of in the same way, whenever that is.
fn newest(parts: &Parts, output: &Output) -> Result<i64, ExecError> {
    let layers = parts.store.layers();
    let mut newest = 0;
    for id in output.chain.iter() {
        newest = newest.max(layers.get(id).map_err(from_store)?.map_or(0, |layer| layer.created_ms()));
    }
    Ok((newest / 1000) as i64)
}

/// What is installed in a file system, and what of it could not be read. Blocking.
fn inventory(base: &Base, cancel: &CancellationToken) -> Result<(Inventory, Vec<String>), ExecError> {
    let mut files: Vec<(TreePath, FileKind)> = Vec::new();
    let mut visit = |path: &TreePath, kind: &Kind| match kind {
        Kind::Dir => !KERNELS.contains(&path.as_bytes()),
        Kind::File { .. } => {
            files.extend(FileKind::of(path.as_bytes()).map(|kind| (path.clone(), kind)));
            false
        }
        _ => false,
    };
    let root = TreePath::root();
    base.trees
        .walk(&base.root, &root, &mut |path, node| visit(path, &node.kind))
        .map_err(ExecError::failed)?;
    let mut warnings = Vec::new();
    if files.len() > MOST_FILES {
        warnings.push(format!("the SBOM tells of {MOST_FILES} files only; {} list packages", files.len()));
        files.truncate(MOST_FILES);
    }
    let release = |path: &str| base.view.read_small(path.as_bytes(), OS_RELEASE_LIMIT).ok().flatten();
    let release = release("etc/os-release").or_else(|| release("usr/lib/os-release"));
    let mut inventory = Inventory::new(OsRelease::parse(&release.unwrap_or_default()));
    for (path, kind) in &files {
        if cancel.is_cancelled() {
            return Err(ExecError::Canceled);
        }
        if is_superfluous(base, path, *kind)? {
            continue;
        }
        let shown = format!("/{}", String::from_utf8_lossy(path.as_bytes()));
        let named = shown.escape_debug().to_string();
        let left_out = |why: String| format!("the SBOM leaves out what `{named}` tells: {why}");
        let bytes = match base.view.read_small(path.as_bytes(), kind.limit()) {
            Err(error @ ViewError::TooLarge { .. }) => {
                warnings.push(left_out(causes(&error)));
                continue;
            }
            bytes => bytes.map_err(ExecError::failed)?.unwrap_or_default(),
        };
        if let Err(error) = inventory.add(&shown, *kind, &bytes) {
            warnings.push(left_out(causes(&error)));
        }
    }
    Ok((inventory, warnings))
}

/// Whether a better file lies beside one.
fn is_superfluous(base: &Base, path: &TreePath, kind: FileKind) -> Result<bool, ExecError> {
    let Some(better) = kind.better() else { return Ok(false) };
    let better = path.parent().unwrap_or_default().join(better.as_bytes()).map_err(ExecError::failed)?;
    Ok(base.trees.get(&base.root, &better).map_err(ExecError::failed)?.is_some())
}
