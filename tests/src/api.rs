//! BuildKit's API, called as a stock client calls it.

use std::time::Duration;

use proto::control::control_client::ControlClient;
use proto::control::{SolveRequest, SolveResponse};
use proto::gateway;
use proto::gateway::llb_bridge_client::LlbBridgeClient;
use proto::pb::Definition;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::Daemon;

/// How long any call may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a daemon. Its methods wait for the answer.
#[derive(Debug)]
pub struct Api {
    /// Where calls run.
    pub runtime: Runtime,
    channel: Channel,
}

/// A build whose frontend is the test.
#[derive(Debug)]
pub struct Gateway<'a> {
    api: &'a Api,
    build: String,
    solve: Option<JoinHandle<Result<SolveResponse, Status>>>,
}

impl Api {
    /// Connects.
    ///
    /// # Panics
    /// When nothing answers.
    pub fn connect(daemon: &Daemon) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let endpoint = Endpoint::from_shared(daemon.addr()).expect("an address").timeout(PATIENCE);
        let channel = runtime.block_on(endpoint.connect()).expect("a daemon");
        Self { runtime, channel }
    }

    /// The Control service.
    pub fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
    }

    /// The LLBBridge service.
    pub fn bridge(&self) -> LlbBridgeClient<Channel> {
        LlbBridgeClient::new(self.channel.clone())
    }

    /// `Control.Solve`.
    ///
    /// # Errors
    /// What the daemon answers.
    pub fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Status> {
        let mut control = self.control();
        self.runtime.block_on(async move { control.solve(request).await.map(tonic::Response::into_inner) })
    }

    /// Begins a build without frontend.
    pub fn gateway(&self, build: &str) -> Gateway<'_> {
        self.gateway_for(SolveRequest { r#ref: build.to_owned(), ..SolveRequest::default() })
    }

    /// Begins a build that this request describes.
    pub fn gateway_for(&self, request: SolveRequest) -> Gateway<'_> {
        let (build, mut control) = (request.r#ref.clone(), self.control());
        let solve = async move { control.solve(request).await.map(tonic::Response::into_inner) };
        Gateway { api: self, build, solve: Some(self.runtime.spawn(solve)) }
    }
}

impl Gateway<'_> {
    /// A request of this build.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let build = self.build.parse().expect("an ASCII name");
        request.metadata_mut().insert("buildkit-controlapi-buildid", build);
        request
    }

    /// `LLBBridge.Solve`.
    ///
    /// # Errors
    /// What the daemon answers.
    pub fn solve(&self, request: gateway::SolveRequest) -> Result<gateway::Result, Status> {
        let mut bridge = self.api.bridge();
        let request = self.request(gateway::SolveRequest {
            allow_result_return: true,
            allow_result_array_ref: true,
            ..request
        });
        let answer = self.api.runtime.block_on(async move { bridge.solve(request).await })?;
        Ok(answer.into_inner().result.expect("a result"))
    }

    /// Solves a definition; gives its reference.
    ///
    /// # Errors
    /// What the daemon answers.
    ///
    /// # Panics
    /// When the result is no single reference.
    pub fn definition(&self, definition: Definition) -> Result<String, Status> {
        let definition = Some(definition);
        let result = self.solve(gateway::SolveRequest { definition, ..gateway::SolveRequest::default() })?;
        match result.result {
            Some(gateway::result::Result::Ref(reference)) => Ok(reference.id),
            other => panic!("no reference: {other:?}"),
        }
    }

    /// A file of what a definition gives.
    ///
    /// # Errors
    /// What the daemon answers.
    pub fn read(&self, definition: Definition, path: &str) -> Result<String, Status> {
        let reference = self.definition(definition)?;
        let (mut bridge, file_path) = (self.api.bridge(), path.to_owned());
        let request =
            gateway::ReadFileRequest { r#ref: reference, file_path, ..gateway::ReadFileRequest::default() };
        let request = self.request(request);
        let answer = self.api.runtime.block_on(async move { bridge.read_file(request).await })?;
        Ok(String::from_utf8_lossy(&answer.into_inner().data).into_owned())
    }

    /// The names in a directory of what a definition gives.
    ///
    /// # Errors
    /// What the daemon answers.
    pub fn list(&self, definition: Definition, path: &str) -> Result<Vec<String>, Status> {
        let reference = self.definition(definition)?;
        let (mut bridge, dir_path) = (self.api.bridge(), path.to_owned());
        let request =
            gateway::ReadDirRequest { r#ref: reference, dir_path, ..gateway::ReadDirRequest::default() };
        let request = self.request(request);
        let answer = self.api.runtime.block_on(async move { bridge.read_dir(request).await })?;
        Ok(answer.into_inner().entries.into_iter().map(|stat| stat.path).collect())
    }

    /// `LLBBridge.Return`, and then what `Control.Solve` answers.
    ///
    /// # Errors
    /// What the daemon answers to either.
    ///
    /// # Panics
    /// When it was called before.
    pub fn returns(&mut self, request: gateway::ReturnRequest) -> Result<SolveResponse, Status> {
        let (mut bridge, request) = (self.api.bridge(), self.request(request));
        self.api.runtime.block_on(async move { bridge.r#return(request).await })?;
        let solve = self.solve.take().expect("a build returns once");
        self.api.runtime.block_on(solve).expect("no panic")
    }

    /// Ends the build with an empty result.
    ///
    /// # Panics
    /// When that fails.
    pub fn end(mut self) {
        let result = Some(gateway::Result::default());
        self.returns(gateway::ReturnRequest { result, error: None }).expect("an empty result");
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        if let Some(solve) = &self.solve {
            solve.abort();
        }
    }
}
