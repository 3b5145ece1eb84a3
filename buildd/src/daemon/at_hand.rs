//! What exports need of a result, brought in before they begin: what only caches of the build have is nowhere when it is over.

use std::sync::Arc;

use cache::oci::Reference;
use futures_util::StreamExt as _;
use solver::{ExecError, LayerId, Need, VertexContext};

use super::export::{AtRegistries, Built, ExportRequest, Form, LayerBlob, Packing, Results};
use super::failure::Failure;
use super::parts::Parts;
use super::run::Run;

/// How many layers registries are asked about at a time.
const AT_ONCE: usize = 8;

/// Brings in what only caches of this build have, but for layers that all places have that the results are pushed to. A result that
/// cannot be had is made. `files`: somebody is going to look into the results.
///
/// # Errors
/// A result that cannot be made either; cancellation.
pub(super) async fn at_hand(
    parts: &Parts,
    run: &Run,
    exports: &[ExportRequest],
    files: bool,
    results: &mut Results,
) -> Result<(), Failure> {
    let cx = run.context(solver::Progress::new(|_| {}));
    let keyed = run.caches.keyed();
    let blobs = parts.exporter.layer_blobs(Form::compressed(), &cx.build);
    let mut known = AtRegistries { repositories: keyed.repositories(), ..AtRegistries::default() };
    let files = files || results.built.iter().any(|built| !built.claims.is_empty());
    // Of an image of several platforms that is kept here, too, all of them are; and later builds may not trust a registry as this one does.
    let own = results.multi_platform || parts.images.trusts_blindly(&cx.build);
    let kept = own && exports.iter().any(|export| export.store);
    let pushed = if files || kept { None } else { only_pushed(exports) };
    // An image under a name is whole, as docker keeps it, unless it lies at a registry under that name.
    let whole = |export: &ExportRequest| export.store && !export.push && !export.store_incomplete;
    let complete = exports.iter().any(|export| whole(export) && !export.names.is_empty());
    for built in &mut results.built {
        let Some(made) = built.made.clone() else { continue };
        if let Some((names, packing)) = &pushed {
            let found = there(parts, run, built, names, *packing, &known, &cx);
            let found = run.cancel.run_until_cancelled(found).await;
            let found = found.ok_or_else(|| Failure::of_export(&ExecError::Canceled))?;
            known.layers.extend(found.into_iter().map(|layer| (layer.id, layer)));
        }
        let chain = built.output.chain.iter();
        let rest: Vec<LayerId> = chain.filter(|id| !known.layers.contains_key(*id)).copied().collect();
        let brought = async {
            keyed.bring_chain(&rest, &cx).await?;
            blobs.bring_from_caches(&rest, complete, &cx).await
        };
        match brought.await {
            Ok(()) => {}
            Err(ExecError::Canceled) => return Err(Failure::of_export(&ExecError::Canceled)),
            Err(error) => {
                tracing::warn!(build = run.reference, "a cached result cannot be had: {error}");
                built.output = run.evaluate(&made.graph, Need::Present).await?;
            }
        }
    }
    results.at_registries = Arc::new(known);
    Ok(())
}

/// The names that all exports push to, where none of them does anything else, and how they store layers.
fn only_pushed(exports: &[ExportRequest]) -> Option<(Vec<&Reference>, Packing)> {
    let packing = exports.first()?.layer_form()?;
    let same = |export: &ExportRequest| export.only_needs_blobs() && export.layer_form() == Some(packing);
    let names = || exports.iter().flat_map(|export| &export.names).collect();
    exports.iter().all(same).then(|| (names(), packing))
}

/// The lent layers of a result that are not here and that all of the `names` have.
async fn there(
    parts: &Parts,
    run: &Run,
    built: &Built,
    names: &[&Reference],
    packing: Packing,
    known: &AtRegistries,
    cx: &VertexContext,
) -> Vec<LayerBlob> {
    let client = &parts.images.client(cx);
    let lent = built.output.chain.iter().filter_map(|id| run.caches.keyed().lent(id, &cx.build));
    let lent: Vec<LayerBlob> = lent.filter(|layer| packing.makes(&layer.descriptor.media_type)).collect();
    let asked = lent.into_iter().map(|layer| async move {
        for &name in names {
            match known.has_or_mounts(client, name, &layer.descriptor.digest, None).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    tracing::debug!(build = cx.build, "cannot ask {name} for a layer: {error}");
                    return None;
                }
            }
        }
        Some(layer)
    });
    let asked: Vec<_> = asked.collect();
    futures_util::stream::iter(asked)
        .buffer_unordered(AT_ONCE)
        .filter_map(async |found| found)
        .collect()
        .await
}
