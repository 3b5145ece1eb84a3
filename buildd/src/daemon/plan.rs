//! What a frontend made of a request: graphs that are still to be evaluated.

use std::sync::Arc;

use frontend::config::ImageConfig;
use futures_util::future::try_join_all;
use solver::op::Platform;
use solver::{Graph, Need};

use super::claims::{self, Scans};
use super::export::{Built, Results};
use super::failure::Failure;
use super::metadata::Metadata;
use super::provenance::{Made, Origin};
use super::run::Run;

/// One platform's result.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// What it is for.
    pub platform: Platform,
    /// What makes its files; no head is scratch.
    pub graph: Arc<Graph>,
    /// Who asked for it.
    pub origin: Arc<Origin>,
    /// How it is run; `None` where no frontend said so.
    pub config: Option<ImageConfig>,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch: Option<i64>,
    /// So many entries of the config's history are those of the image that it is built on.
    pub inherited: usize,
    /// What else the frontend says of it, in files that are still to be made.
    pub claims: Vec<claims::Planned>,
    /// What an SBOM of it is to cover besides.
    pub scans: Arc<Scans>,
}

/// Results for one or several platforms.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// In the order asked for.
    pub parts: Vec<Planned>,
    /// The result is an index, even of one platform.
    pub multi_platform: bool,
    /// What a frontend said of it besides.
    pub metadata: Metadata,
}

impl Plan {
    /// Evaluates all parts at the same time.
    ///
    /// # Errors
    /// The first vertex that failed.
    pub(super) async fn evaluate(self, run: &Run) -> Result<Results, Failure> {
        let built = try_join_all(self.parts.into_iter().map(|part| part.evaluate(run))).await?;
        Ok(Results {
            built,
            multi_platform: self.multi_platform,
            metadata: self.metadata,
            ..Results::default()
        })
    }
}

impl Planned {
    async fn evaluate(self, run: &Run) -> Result<Built, Failure> {
        let output = run.evaluate(&self.graph, Need::Available).await?;
        let made = Some(Made { graph: self.graph.clone(), origin: self.origin.clone() });
        let claims = self.claims.iter().map(|claim| async move {
            let files = match &claim.files {
                Some(graph) => Some(run.evaluate(graph, Need::Present).await?),
                None => None,
            };
            Ok::<_, Failure>(claim.with(files))
        });
        let claims = try_join_all(claims).await?;
        let Self { platform, config, epoch, inherited, scans, .. } = self;
        Ok(Built {
            platform,
            output,
            config,
            epoch,
            inherited,
            made,
            provenance: None,
            claims,
            scans,
            cache: None,
            sbom: Vec::new(),
        })
    }
}
