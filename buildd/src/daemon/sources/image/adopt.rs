//! Results of shared caches taken as images: what is known of both is a list of layers, and where they are.

use std::sync::Arc;

use cache::oci::{Descriptor, Manifest, ResolvedImage, media_type};
use cache::store::{BlobRef, Origin};
use serde_json::json;
use solver::op::{Platform, SourceOp, attr};
use solver::{Digest, ExecError, LayerId, Output, VertexContext};

use super::{Found, Home, ImageError, ImageSource, chain_of, host_platform};
use crate::daemon::remote_cache::{CacheHome, ServiceStore};
use crate::llb::image_key;

impl ImageSource {
    /// An output with these layers, lowest first. Those at a registry or a service stay there until they are needed; those
    /// that only the client has come in.
    ///
    /// # Errors
    /// A client that does not give them.
    pub(crate) async fn adopt(
        &self,
        home: &CacheHome,
        layers: Vec<Descriptor>,
        diff_ids: Vec<Digest>,
        cx: &VertexContext,
    ) -> Result<Output, ExecError> {
        let host = host_platform();
        let config = json!({
            "architecture": host.architecture,
            "os": host.os,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let described = Descriptor::of(media_type::OCI_CONFIG, &config);
        let manifest = Manifest::new(described, layers);
        let bytes = manifest.to_json();
        let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        let digest = descriptor.digest;
        let image = ResolvedImage::new(digest, descriptor, bytes, manifest, config)
            .map_err(|e| ExecError::failed(ImageError::from(e)))?;
        let unnamed = || {
            let name = cache::oci::Reference::parse("cache");
            name.map_err(|e| ExecError::failed(ImageError::from(e)))
        };
        let (reference, name, home) = match home {
            CacheHome::Registry(reference) => (reference.clone(), reference.to_string(), Home::Registry),
            CacheHome::Store(store) => (unnamed()?, "cache".to_owned(), Home::Layout(store.clone())),
            CacheHome::Service(name, store) => (unnamed()?, name.clone(), Home::Cache(store.clone())),
        };
        let chain = chain_of(image.layers().map(|(_, diff_id)| diff_id));
        let key = (cx.build.clone(), home.layout().cloned(), format!("{name}@{digest}"), host);
        let found = {
            let known = self.lock().get(&key).cloned();
            match known {
                Some(known) => known,
                None => {
                    let found = Arc::new(Found { reference, image, layers: chain.clone(), home });
                    if found.home.layout().is_none() {
                        self.declare(&found, &self.leases.of(&cx.build))?;
                    }
                    self.lock().insert(key, found.clone());
                    found
                }
            }
        };
        let content = match found.home.layout() {
            Some(_) => Some(self.unpacked(&found, cx).await?),
            None => self.chains.image_content(&digest)?.map(Digest::from),
        };
        Ok(Output { chain, content, local: None })
    }

    /// Where a layer is that only a cache of this build has, and its blob there.
    pub(crate) fn in_cache(
        &self,
        layer: &LayerId,
        cx: &VertexContext,
    ) -> Option<(Arc<ServiceStore>, Descriptor)> {
        self.of_build(&cx.build).into_iter().find_map(|found| {
            let Home::Cache(store) = &found.home else { return None };
            let at = found.layers.iter().position(|id| id == layer)?;
            Some((store.clone(), found.image.manifest.layers[at].clone()))
        })
    }

    /// Where a layer of an image is that this build looked up at a registry, if all such images agree on its blob.
    pub(crate) fn looked_up(&self, layer: &LayerId, cx: &VertexContext) -> Option<Origin> {
        let origins = self.of_build(&cx.build).into_iter().filter_map(|found| {
            let at =
                matches!(found.home, Home::Registry).then(|| found.layers.iter().position(|id| id == layer));
            let Descriptor { media_type, digest, size, .. } = found.image.manifest.layers[at??].clone();
            Some(Origin {
                reference: found.reference.to_string(),
                blob: BlobRef { digest, size, media_type },
            })
        });
        let mut origins: Vec<Origin> = origins.collect();
        // The same one each time.
        origins.sort_by(|a, b| a.reference.cmp(&b.reference));
        let agreed = origins.windows(2).all(|two| two[0].blob.digest == two[1].blob.digest);
        origins.into_iter().next().filter(|_| agreed)
    }

    /// What BuildKit's caches know an image by: its manifest for a platform, and what its layers are
    /// (`source/containerimage/pull.go`).
    ///
    /// # Errors
    /// An image that cannot be looked up.
    pub(crate) async fn buildkit_keys(
        &self,
        op: &SourceOp,
        platform: Option<&Platform>,
        cx: &VertexContext,
    ) -> Result<Vec<String>, ExecError> {
        let found = self.of_op(op, platform, cx).await?;
        let host = host_platform();
        let limit =
            op.attrs.get(attr::IMAGE_LAYER_LIMIT).or_else(|| op.attrs.get(attr::OCI_LAYOUT_LAYER_LIMIT));
        let limit = limit.and_then(|text| text.parse().ok());
        let mut keys = vec![image_key(&found.image.digest, platform.unwrap_or(&host), limit).to_string()];
        keys.extend(chain_id(&found.image.config.rootfs.diff_ids).map(|id| id.to_string()));
        Ok(keys)
    }
}

/// The ChainID of layers (OCI image spec, "Layer ChainID"); none of no layers.
fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(*first, |below, diff_id| Digest::of(format!("{below} {diff_id}").as_bytes())))
}
