//! `type=local` and `type=tar`: the files themselves.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use cache::Hashing;
use cache::tree::TreePath;
use cache::view::{FileType, MergedView};
use solver::{ExecError, VertexContext};

use super::leaving::{AllFiles, PlatformFiles};
use super::{Built, ExportRequest, Exporter, Results};
use crate::daemon::blocking::blocking;
use crate::daemon::claims::Told;
use crate::daemon::progress::Step;
use crate::daemon::provenance::{About, Provenance, Statement};
use crate::daemon::rootfs_tar;
use crate::daemon::sources::image::oci_platform;
use crate::session::ARRIVAL;

/// A second.
const NANOS: i64 = 1_000_000_000;

impl Exporter {
    pub(super) async fn local(
        &self,
        request: &ExportRequest,
        results: &Results,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<BTreeMap<String, String>, ExecError> {
        let id = cx.sessions.ids().first().cloned().unwrap_or_default();
        let session = self.sessions.get(&id, ARRIVAL).await.map_err(ExecError::failed)?;
        // Directories of platforms go together, so that what else lies in the client's directory can be told apart.
        let split = request.platform_split.unwrap_or(results.multi_platform);
        let all = self.files(request, results, split).await?;
        let all = blocking(move || all.without_conflicts()).await.map_err(ExecError::failed)?;
        let send = async { session.send_dir(request.id, Arc::new(all)).await.map_err(ExecError::failed) };
        step.part("copying files", send).await?;
        Ok(BTreeMap::new())
    }

    pub(super) async fn tar(
        &self,
        request: &ExportRequest,
        results: &Results,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<BTreeMap<String, String>, ExecError> {
        // In an archive nothing takes the place of anything else: several platforms always have a directory each.
        let all = self.files(request, results, results.multi_platform).await?;
        let passed = self.passed_file(request.id, cx);
        let about = BTreeMap::new();
        let write = self.stream(request.id, passed, &about, cx, move |out| {
            rootfs_tar::write(&all, out).map_err(ExecError::failed)
        });
        step.part("sending tarball", write).await?;
        Ok(BTreeMap::new())
    }

    /// The files of each platform, in `dirs` of their own or not, with what is told of them.
    async fn files(
        &self,
        request: &ExportRequest,
        results: &Results,
        dirs: bool,
    ) -> Result<AllFiles, ExecError> {
        let split = request.platform_split.unwrap_or(results.multi_platform);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = now.as_secs() as i64 * NANOS;
        let mut all = Vec::new();
        for built in &results.built {
            let name = oci_platform(&built.platform).full();
            let dir = name.replace('/', "_");
            let mtime = request.epoch.apply(built.epoch).map(|seconds| seconds.saturating_mul(NANOS));
            let mut files = PlatformFiles {
                view: self.chains.base(&built.output)?.view,
                platform: name,
                dir: dirs.then(|| dir.clone()),
                statements: BTreeMap::new(),
                told: now,
                mtime,
            };
            // Unless they go with images only.
            let claims = built.claims.iter().filter(|claim| !claim.inline_only()).cloned().collect();
            let claims = self.told(&Built { claims, ..built.clone() }, None).await?;
            let provenance = built.provenance.clone().filter(|p| !p.options().inline_only);
            if !claims.is_empty() || provenance.is_some() {
                let view = files.view.clone();
                let texts = blocking(move || statements(&claims, provenance.as_deref(), &view)).await?;
                for (file, text) in texts {
                    let name = match results.multi_platform && !split {
                        true => match file.rsplit_once('.') {
                            Some((stem, extension)) => format!("{stem}.{dir}.{extension}"),
                            None => format!("{file}.{dir}"),
                        },
                        false => file,
                    };
                    let name = format!("{}{name}", request.attestation_prefix);
                    if files.statements.contains_key(&name) {
                        return Err(ExecError::failed(TwoOfOneName(name)));
                    }
                    files.statements.insert(name, text);
                }
            }
            all.push(files);
        }
        Ok(AllFiles::new(all))
    }
}

/// Two statements would be one file.
#[derive(Debug, thiserror::Error)]
#[error("duplicate attestation path name {0}")]
struct TwoOfOneName(String);

/// Statements about all files of a view, by the names of their own files.
fn statements(
    claims: &[Told],
    provenance: Option<&Provenance>,
    view: &MergedView,
) -> Result<Vec<(String, Vec<u8>)>, ExecError> {
    let mut about = Vec::new();
    digests(view, &TreePath::root(), &mut about)?;
    let mut all: Vec<(String, Statement)> =
        claims.iter().map(|told| (told.name.clone(), told.statement(&about))).collect();
    if let Some(provenance) = provenance {
        let statement = Statement {
            predicate_type: provenance.predicate_type().to_owned(),
            predicate: provenance.predicate(&[]),
            subjects: about,
        };
        all.push((provenance.options().filename.clone(), statement));
    }
    let text = |(name, statement): (String, Statement)| {
        Ok((name, serde_json::to_vec_pretty(&statement.json()).map_err(ExecError::failed)?))
    };
    all.into_iter().map(text).collect()
}

fn digests(view: &MergedView, dir: &TreePath, out: &mut Vec<About>) -> Result<(), ExecError> {
    for item in view.list(dir).map_err(ExecError::failed)? {
        let path = dir.join(&item.name).map_err(ExecError::failed)?;
        let Some(found) = view.get(&path).map_err(ExecError::failed)? else { continue };
        match found.stat.file_type {
            FileType::Dir => digests(view, &path, out)?,
            FileType::File => {
                let mut hashing = Hashing::new(io::sink());
                let mut file = view.open_file(&found).map_err(ExecError::failed)?;
                io::copy(&mut file, &mut hashing).map_err(ExecError::failed)?;
                let (_, digest, _) = hashing.finish();
                let name = String::from_utf8_lossy(found.path.as_bytes()).into_owned();
                out.push(About::new(name, digest.hex()));
            }
            _ => {}
        }
    }
    Ok(())
}
