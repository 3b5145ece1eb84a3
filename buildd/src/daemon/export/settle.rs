//! Where an exporter's wishes and what a frontend says of its result meet.

use solver::Output;

use super::annotations::Annotations;
use super::attrs::image_names;
use super::{Built, ExportKind, ExportRequest, Results};
use crate::daemon::chains::Chains;
use crate::daemon::failure::Failure;
use crate::daemon::metadata::NamedPlatform;
use crate::daemon::sources::image::host_platform;

impl ExportRequest {
    /// This request with what the frontend wishes, and the results as this exporter sees them.
    ///
    /// # Errors
    /// Wishes that cannot be, of either.
    pub(crate) fn settled(&self, results: &Results) -> Result<(Self, Results), Failure> {
        let (mut request, mut results) = (self.clone(), results.clone());
        results.metadata.overlay(&self.metadata);
        if matches!(self.kind, ExportKind::Local | ExportKind::Tar) {
            return Ok((request, results));
        }
        // An image without files is one, too.
        if results.built.is_empty() {
            results.built.push(Built::scratch());
        }
        if !self.metadata.is_empty() {
            results.describe()?;
        }
        let annotations = results.metadata.annotations();
        let annotations = Annotations::new(&annotations).map_err(|e| Failure::invalid(&e))?;
        request.annotations = request.annotations.and(annotations);
        request.oci_types |= !request.annotations.is_empty();
        if let Some(names) = results.metadata.names().filter(|_| self.named_by_frontend) {
            request.names = image_names(names).map_err(|e| Failure::invalid(&e))?;
        }
        Ok((request, results))
    }
}

impl Built {
    /// No files, for this machine's platform, and nothing that is said of them.
    pub(crate) fn scratch() -> Self {
        Self {
            platform: host_platform(),
            output: Output::scratch(Chains::empty()),
            config: None,
            epoch: None,
            inherited: 0,
            made: None,
            provenance: None,
            cache: None,
            claims: Vec::new(),
            scans: Default::default(),
            sbom: Vec::new(),
        }
    }
}

impl Results {
    /// Takes configs, and with them platforms, from the metadata.
    fn describe(&mut self) -> Result<(), Failure> {
        let named = self.metadata.platforms()?;
        if let ([built], [named]) = (&mut self.built[..], &named[..]) {
            built.platform = named.platform.clone();
        }
        for built in &mut self.built {
            let id = NamedPlatform::new(built.platform.clone()).id;
            if let Some(config) = self.metadata.config(&id)? {
                built.inherited = self.metadata.inherited(&id, &config)?.unwrap_or_default();
                built.config = Some(config);
            }
            built.epoch = self.metadata.epoch(&id)?.or(built.epoch);
        }
        Ok(())
    }
}
