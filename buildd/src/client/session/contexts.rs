//! Local sources: build contexts over fsutil's protocol.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use frontend::number::boolean;
use futures_util::stream::BoxStream;
use proto::filesync::file_sync_server::FileSync;
use proto::fsutil::Packet;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::fsutil::{Selection, Tree, packets, send};

/// Batches of packets that are made before the transport takes them.
const BACKLOG: usize = 16;

/// Directories by the name of their local source.
#[derive(Debug)]
pub(super) struct Contexts(pub(super) BTreeMap<String, PathBuf>);

type Packets = BoxStream<'static, Result<Packet, Status>>;

#[tonic::async_trait]
impl FileSync for Contexts {
    type DiffCopyStream = Packets;
    type TarStreamStream = Packets;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let name = values(&metadata, "dir-name").into_iter().next().unwrap_or_default();
        let dir = self.0.get(&name).cloned();
        let dir = dir.ok_or_else(|| Status::not_found(format!("no access allowed to dir {name:?}")))?;
        let selection = Selection {
            include: values(&metadata, "include-patterns"),
            exclude: values(&metadata, "exclude-patterns"),
            follow: values(&metadata, "followpaths"),
        };
        let tree = tokio::task::spawn_blocking(move || Tree::new(&dir, &selection))
            .await
            .map_err(|_| Status::cancelled("the client is shutting down"))??;
        let (tx, rx) = tokio::sync::mpsc::channel(BACKLOG);
        Ok(Response::new(super::raw::answer(packets(rx), send(Arc::new(tree), incoming, tx))))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        Err(Status::unimplemented("only DiffCopy is offered"))
    }
}

/// The values of a header, unescaped when they are flagged as such.
fn values(metadata: &MetadataMap, key: &str) -> Vec<String> {
    let flag = metadata.get(format!("{key}-encoded").as_str()).and_then(|v| v.to_str().ok());
    let encoded = flag.and_then(boolean) == Some(true);
    let texts = metadata.get_all(key).iter().filter_map(|v| v.to_str().ok());
    texts.map(|text| if encoded { unescape(text) } else { text.to_owned() }).collect()
}

/// Undoes query escaping of one value.
fn unescape(text: &str) -> String {
    // Neither separates here, so both must not look like separators.
    let safe = text.replace('=', "%3D").replace('&', "%26");
    url::form_urlencoded::parse(safe.as_bytes()).map(|(value, _)| value.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_unescaped_only_when_flagged() {
        let mut metadata = MetadataMap::new();
        metadata.append("dir-name", "a+b%20c".parse().unwrap());
        assert_eq!(values(&metadata, "dir-name"), ["a+b%20c"]);
        metadata.append("dir-name", "%C3%A4%3D%26=&x".parse().unwrap());
        metadata.append("dir-name-encoded", "1".parse().unwrap());
        assert_eq!(values(&metadata, "dir-name"), ["a b c", "ä=&=&x"]);
        assert!(values(&metadata, "followpaths").is_empty());
    }
}
