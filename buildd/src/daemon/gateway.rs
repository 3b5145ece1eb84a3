//! BuildKit's LLBBridge service: a client that is its own frontend.
//!
//! `Control.Solve` without frontend and definition opens a [`Bridge`] under its ref and waits. The client's calls name
//! that ref in a header; they solve graphs and frontends, look into results, and end with `Return`, whose result
//! `Control.Solve` then evaluates and exports.

mod bridge;
mod caps;
mod container;
mod frontend;
mod look;
mod open;
mod process;
mod read;
mod resolve;
mod result;
mod scanner;

use std::sync::Arc;

use futures_util::stream::BoxStream;
use proto::gateway::llb_bridge_server::LlbBridge;
use proto::gateway::{
    EvaluateRequest, EvaluateResponse, ExecMessage, InputsRequest, InputsResponse, NewContainerRequest,
    NewContainerResponse, PingRequest, PongResponse, ReadDirRequest, ReadDirResponse, ReadFileRequest,
    ReadFileResponse, ReleaseContainerRequest, ReleaseContainerResponse, ResolveImageConfigRequest,
    ResolveImageConfigResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse, ReturnRequest,
    ReturnResponse, SolveRequest, SolveResponse, StatFileRequest, StatFileResponse, WarnRequest,
    WarnResponse,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::about;
use super::blocking::blocking;
use super::parts::Parts;
use bridge::Bridge;

pub(super) use frontend::ask as ask_frontend;
pub(super) use open::{Gateways, Open};
pub(super) use resolve::source_meta;
pub(super) use scanner::Scanner;

/// Header with the ref of the build that a call belongs to.
const HEADER_BUILD: &str = "buildkit-controlapi-buildid";

/// Serves LLBBridge.
#[derive(Debug, Clone)]
pub(super) struct GatewayService {
    /// What the daemon is made of.
    pub parts: Arc<Parts>,
    /// The bridge that is served; `None`: that of the build which a call names.
    pub only: Option<Arc<Bridge>>,
}

type Reply<T> = Result<Response<T>, Status>;

impl GatewayService {
    /// The bridge of the build that a call names, and what it asks for.
    async fn bridge<T>(&self, request: Request<T>) -> Result<(Arc<Bridge>, T), Status> {
        if let Some(bridge) = &self.only {
            return Ok((bridge.clone(), request.into_inner()));
        }
        let build = request.metadata().get(HEADER_BUILD).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if build.is_empty() {
            return Err(Status::invalid_argument(format!(
                "no buildid found in context: the call has no header `{HEADER_BUILD}`"
            )));
        }
        let bridge = self.parts.gateways.get(build).await;
        let bridge = bridge.ok_or_else(|| Status::not_found(format!("no such job {build}")))?;
        Ok((bridge, request.into_inner()))
    }
}

#[tonic::async_trait]
impl LlbBridge for GatewayService {
    type ExecProcessStream = BoxStream<'static, Result<ExecMessage, Status>>;

    async fn ping(&self, request: Request<PingRequest>) -> Reply<PongResponse> {
        self.bridge(request).await?;
        let parts = self.parts.clone();
        let worker = blocking(move || about::worker(&parts)).await;
        Ok(Response::new(PongResponse {
            frontend_api_caps: caps::frontend(),
            llb_caps: caps::llb(),
            workers: vec![worker],
        }))
    }

    async fn inputs(&self, request: Request<InputsRequest>) -> Reply<InputsResponse> {
        let (bridge, _) = self.bridge(request).await?;
        let definitions = bridge.inputs.iter().map(|(name, definition)| {
            (name.clone(), crate::llb::without_empty_locations(definition.clone()))
        });
        Ok(Response::new(InputsResponse { definitions: definitions.collect() }))
    }

    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Reply<ResolveImageConfigResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.image_config(request).await.map(Response::new).map_err(|e| bridge.told(e))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<ResolveSourceMetaRequest>,
    ) -> Reply<ResolveSourceMetaResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.source_meta(request).await.map(Response::new).map_err(|e| bridge.told(e))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Reply<SolveResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.solve(request).await.map(Response::new).map_err(|e| bridge.told(e))
    }

    async fn evaluate(&self, request: Request<EvaluateRequest>) -> Reply<EvaluateResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.evaluate(&request.r#ref).await.map_err(|e| bridge.told(e))?;
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Reply<ReadFileResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.read_file(request).await.map(Response::new).map_err(|e| bridge.told(e))
    }

    async fn read_dir(&self, request: Request<ReadDirRequest>) -> Reply<ReadDirResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.read_dir(request).await.map(Response::new).map_err(|e| bridge.told(e))
    }

    async fn stat_file(&self, request: Request<StatFileRequest>) -> Reply<StatFileResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.stat_file(request).await.map(Response::new).map_err(|e| bridge.told(e))
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Reply<WarnResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.warn(request);
        Ok(Response::new(WarnResponse {}))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Reply<ReturnResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.accept(request).map_err(|e| e.status())?;
        Ok(Response::new(ReturnResponse {}))
    }

    async fn new_container(&self, request: Request<NewContainerRequest>) -> Reply<NewContainerResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.new_container(request).await.map_err(|e| bridge.told(e))?;
        Ok(Response::new(NewContainerResponse {}))
    }

    async fn release_container(
        &self,
        request: Request<ReleaseContainerRequest>,
    ) -> Reply<ReleaseContainerResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.containers.release(&request.container_id).await.map_err(|e| e.status())?;
        Ok(Response::new(ReleaseContainerResponse {}))
    }

    async fn exec_process(&self, request: Request<Streaming<ExecMessage>>) -> Reply<Self::ExecProcessStream> {
        let (bridge, messages) = self.bridge(request).await?;
        let (answers, stream) = tokio::sync::mpsc::channel(process::BACKLOG);
        tokio::spawn(process::serve(bridge, messages, answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn read_file_container(&self, request: Request<ReadFileRequest>) -> Reply<ReadFileResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.read_file_container(request).await.map(Response::new).map_err(|e| e.status())
    }

    async fn read_dir_container(&self, request: Request<ReadDirRequest>) -> Reply<ReadDirResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.read_dir_container(request).await.map(Response::new).map_err(|e| e.status())
    }

    async fn stat_file_container(&self, request: Request<StatFileRequest>) -> Reply<StatFileResponse> {
        let (bridge, request) = self.bridge(request).await?;
        bridge.stat_file_container(request).await.map(Response::new).map_err(|e| e.status())
    }
}
