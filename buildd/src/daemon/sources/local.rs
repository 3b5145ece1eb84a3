//! `local://NAME`: a directory of a session.

use std::sync::Arc;

use solver::op::SourceOp;
use solver::{ExecError, Output, SourceAnswer, SourceIdentity, Status, VertexContext};

use crate::daemon::blocking::blocking;
use crate::daemon::locals::{LocalRequest, Locals};
use crate::daemon::snapshot::Maker;

#[derive(Debug)]
pub(super) struct LocalSource {
    pub(super) locals: Arc<Locals>,
    pub(super) maker: Maker,
}

impl LocalSource {
    pub(super) async fn identify(
        &self,
        op: &SourceOp,
        cx: &VertexContext,
    ) -> Result<SourceAnswer, ExecError> {
        let name = op.scheme_and_ref().1;
        let request = LocalRequest::new(name, &op.attrs)?;
        let started = std::time::SystemTime::now();
        let local = self.locals.walk(request, cx).await?;
        cx.progress.status(Status {
            id: format!("transferring {name}:"),
            current: local.bytes,
            total: 0,
            started,
            completed: Some(std::time::SystemTime::now()),
        });
        let output = Output {
            chain: Arc::new([]),
            content: Some(*local.context.root.digest()),
            local: Some(local.id),
        };
        Ok(SourceAnswer { identity: SourceIdentity::Content, revision: None, output: Some(output) })
    }

    /// Copies the directory into a layer, for those that cannot read it in place.
    pub(super) async fn fetch(&self, answer: &SourceAnswer, cx: &VertexContext) -> Result<Output, ExecError> {
        let local = answer.output.as_ref().and_then(|o| o.local);
        let context = local
            .and_then(|l| self.locals.get(l))
            .ok_or(ExecError::Changed { path: "the local directory".into() })?;
        let (maker, build) = (self.maker.clone(), cx.build.clone());
        blocking(move || maker.of_context(context, &build, "local source")).await
    }
}
