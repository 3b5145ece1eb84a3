//! Fake ops, a record store in memory, and workers that count what they do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use solver::op::{
    ExecMeta, ExecOp, Mount, MountContentCache, MountKind, NetMode, Platform, SecurityMode, SourceOp,
};
use solver::*;
use tokio_util::sync::CancellationToken;

/// Records in a map.
#[derive(Default)]
pub(crate) struct MemoryRecords {
    pub(crate) map: Mutex<HashMap<Key, Kept>>,
    pub(crate) lookups: AtomicUsize,
}

#[async_trait]
impl RecordStore for MemoryRecords {
    async fn lookup(&self, keys: &[Key]) -> Result<Vec<Option<Kept>>, RecordError> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let map = self.map.lock().unwrap();
        Ok(keys.iter().map(|k| map.get(k).cloned()).collect())
    }

    async fn put(&self, key: Key, names: &[Name], record: Record, how: Put) -> Result<Record, RecordError> {
        let mut map = self.map.lock().unwrap();
        let winner = match (how, map.get(&key).map(|kept| kept.record.clone())) {
            (Put::IfAbsent, Some(old)) => old,
            (Put::Replace(want), Some(there)) if want.as_ref() != Some(&there) => there,
            _ => record,
        };
        map.insert(key, Kept { record: winner.clone(), stands_on: None });
        for Name { key, stands_on } in names {
            map.insert(*key, Kept { record: winner.clone(), stands_on: Some(stands_on.clone()) });
        }
        Ok(winner)
    }

    async fn alias(&self, name: Name, key: Key) -> Result<(), RecordError> {
        let mut map = self.map.lock().unwrap();
        if let Some(Kept { record, .. }) = map.get(&key).cloned() {
            map.insert(name.key, Kept { record, stands_on: Some(name.stands_on) });
        }
        Ok(())
    }
}

/// `img://NAME` is an image whose identity and content come from `images`; `dir://NAME` a session's directory;
/// `file://NAME` a download, of which nothing is known before it is fetched.
#[derive(Default)]
pub(crate) struct FakeSource {
    pub(crate) images: Mutex<BTreeMap<String, &'static str>>,
    pub(crate) dirs: Mutex<BTreeMap<String, String>>,
    pub(crate) fetches: AtomicUsize,
}

fn digest(s: &str) -> Digest {
    Digest::of(s.as_bytes())
}

#[async_trait]
impl Source for FakeSource {
    async fn identify(
        &self,
        op: &SourceOp,
        _: Option<&Platform>,
        _: &VertexContext,
    ) -> Result<SourceAnswer, ExecError> {
        let (scheme, name) = op.scheme_and_ref();
        if scheme == "dir" {
            let content = digest(&self.dirs.lock().unwrap()[name]);
            let output = Output { chain: Arc::new([]), content: Some(content), local: Some(LocalRef(1)) };
            return Ok(SourceAnswer {
                identity: SourceIdentity::Content,
                revision: None,
                output: Some(output),
            });
        }
        if scheme == "file" {
            return Ok(SourceAnswer {
                identity: SourceIdentity::Digest(digest("body")),
                revision: None,
                output: None,
            });
        }
        let manifest = self.images.lock().unwrap()[name];
        let output = Output { chain: Arc::new([LayerId(digest(manifest))]), content: None, local: None };
        Ok(SourceAnswer {
            identity: SourceIdentity::Digest(digest(manifest)),
            revision: None,
            output: Some(output),
        })
    }

    async fn fetch(
        &self,
        _: &SourceOp,
        _: Option<&Platform>,
        a: &SourceAnswer,
        _: &VertexContext,
    ) -> Result<Output, ExecError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let Some(mut out) = a.output.clone() else {
            let chain = Arc::new([LayerId(digest("body"))]);
            return Ok(Output { chain, content: Some(digest("body")), local: None });
        };
        if out.local.take().is_some() {
            out.chain = Arc::new([LayerId(out.content.unwrap())]);
        }
        out.content.get_or_insert(digest("unpacked"));
        Ok(out)
    }
}

/// Executes `args`: the content that comes out is `out=X` of the arguments, or else a hash of all; with `random`
/// at the start it is another one each time.
pub(crate) struct FakeWorker {
    pub(crate) ran: Mutex<Vec<String>>,
    /// What ran for the result itself.
    pub(crate) in_result: Mutex<Vec<String>>,
    pub(crate) cancelled: Mutex<Vec<String>>,
    pub(crate) layers: Mutex<HashSet<LayerId>>,
    /// What builds rely on.
    pub(crate) held: Mutex<HashSet<(String, LayerId)>>,
    pub(crate) behaviour: Mutex<BTreeMap<String, Behaviour>>,
    pub(crate) running: AtomicUsize,
    pub(crate) most: AtomicUsize,
    pub(crate) gate: tokio::sync::Semaphore,
    serial: AtomicUsize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Behaviour {
    Fail,
    Panic,
    WaitForGate,
    LogThenWait,
    NeedSession(String),
    /// Fails where this session does not serve the step.
    AskSession(String),
    /// Finds this session gone, and fails without it.
    LoseSession(String),
    ChangedOnce,
}

impl Default for FakeWorker {
    fn default() -> Self {
        Self {
            ran: Mutex::default(),
            in_result: Mutex::default(),
            cancelled: Mutex::default(),
            layers: Mutex::default(),
            held: Mutex::default(),
            behaviour: Mutex::default(),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            gate: tokio::sync::Semaphore::new(0),
            serial: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl Worker for FakeWorker {
    async fn execute(&self, job: &Job) -> Result<Vec<(u32, OutputRecord)>, ExecFailure> {
        let Op::Exec(op) = &job.vertex.op else { panic!("exec only") };
        let name = op.meta.args.join(" ");
        self.ran.lock().unwrap().push(name.clone());
        if job.in_result {
            self.in_result.lock().unwrap().push(name.clone());
        }
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let done = self.behave(&name, job).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        if let Err(error) = done {
            return Err(ExecFailure { error, remains: Some(Remains::new(name)) });
        }
        let mut h = digest::Hasher::new("fake");
        h.str(&name);
        for i in &job.inputs {
            h.digest(&i.content.unwrap());
        }
        let serial = self.serial.fetch_add(1, Ordering::SeqCst);
        if name.starts_with("random") {
            h.u64(serial as u64);
        }
        let content = name.split_once("out=").map_or_else(|| h.finish(), |(_, x)| digest(x));
        // As for times: two executions of equal content give different layers.
        let layer = LayerId(digest(&format!("{name}{serial}")));
        self.layers.lock().unwrap().insert(layer);
        Ok(vec![(0, OutputRecord { content, layer: Some(layer) })])
    }

    async fn selection_digest(&self, output: &Output, selections: &[Selection]) -> Result<Digest, ExecError> {
        let mut h = digest::Hasher::new("sel");
        h.digest(&output.content.unwrap());
        for s in selections {
            if s.path.contains("missing") {
                return Err(ExecError::failed(std::io::Error::other(s.path.clone())));
            }
            h.str(&s.path);
        }
        Ok(h.finish())
    }

    async fn available(&self, layer: LayerId, build: &str) -> bool {
        let here = self.layers.lock().unwrap().contains(&layer);
        if here {
            self.held.lock().unwrap().insert((build.to_owned(), layer));
        }
        here
    }
}

impl FakeWorker {
    async fn behave(&self, name: &str, job: &Job) -> Result<(), ExecError> {
        let b = self.behaviour.lock().unwrap().get(name).cloned();
        match b {
            None => tokio::time::sleep(Duration::from_millis(1)).await,
            Some(Behaviour::Fail) => return Err(ExecError::Exit { code: 3, stderr: "".into() }),
            Some(Behaviour::Panic) => panic!("as told"),
            Some(Behaviour::ChangedOnce) => {
                self.behaviour.lock().unwrap().remove(name);
                return Err(ExecError::Changed { path: "f".into() });
            }
            Some(Behaviour::NeedSession(dead)) if job.cx.sessions.ids()[0] == dead => {
                self.gate.acquire().await.unwrap().forget();
                return Err(ExecError::SessionLost { session: dead });
            }
            Some(Behaviour::NeedSession(_)) => {}
            Some(Behaviour::AskSession(giver)) if job.cx.sessions.ids().contains(&giver) => {}
            Some(Behaviour::LoseSession(lost)) if job.cx.sessions.ids().contains(&lost) => {
                return Err(ExecError::SessionLost { session: lost });
            }
            Some(Behaviour::AskSession(_) | Behaviour::LoseSession(_)) => {
                return Err(ExecError::Exit { code: 4, stderr: "".into() });
            }
            Some(b) => {
                if b == Behaviour::LogThenWait {
                    job.cx.progress.log(Stream::Stdout, b"early\n");
                }
                tokio::select! {
                    p = self.gate.acquire() => p.unwrap().forget(),
                    () = job.cx.cancel.cancelled() => {
                        self.cancelled.lock().unwrap().push(name.into());
                        return Err(ExecError::Canceled);
                    }
                }
                job.cx.progress.log(Stream::Stdout, b"late\n");
            }
        }
        Ok(())
    }

    pub(crate) fn runs(&self) -> Vec<String> {
        let mut r = self.ran.lock().unwrap().clone();
        r.sort();
        r
    }
}

/// Remembers what it was told.
#[derive(Default)]
pub(crate) struct Told(pub(crate) Mutex<Vec<(u32, Event)>>);

impl EventSink for Told {
    fn event(&self, v: VertexId, e: Event) {
        self.0.lock().unwrap().push((v.0, e));
    }
}

impl Told {
    pub(crate) fn cached(&self) -> Vec<u32> {
        let mut v: Vec<u32> = self
            .0
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, e)| matches!(e, Event::Cached(_)))
            .map(|(v, _)| *v)
            .collect();
        v.sort_unstable();
        v
    }

    pub(crate) fn log(&self) -> String {
        let text = |(_, e): &(u32, Event)| match e {
            Event::Update(Update::Log { data, .. }) => Some(String::from_utf8_lossy(data).into_owned()),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(text).collect()
    }
}

/// An engine over fakes.
pub(crate) struct World {
    pub(crate) records: Arc<MemoryRecords>,
    pub(crate) source: Arc<FakeSource>,
    pub(crate) worker: Arc<FakeWorker>,
    pub(crate) engine: Engine,
}

impl World {
    pub(crate) fn new(parallelism: usize) -> Self {
        let (records, source, worker) =
            (Arc::<MemoryRecords>::default(), Arc::<FakeSource>::default(), Arc::<FakeWorker>::default());
        source.images.lock().unwrap().insert("base".into(), "m1");
        let engine = Engine::new(records.clone(), source.clone(), worker.clone(), parallelism);
        Self { records, source, worker, engine }
    }

    /// A second machine: the same records, another worker that shares no disk.
    pub(crate) fn other_machine(&self) -> Self {
        let worker = Arc::<FakeWorker>::default();
        let engine = Engine::new(self.records.clone(), self.source.clone(), worker.clone(), 4);
        Self { records: self.records.clone(), source: self.source.clone(), worker, engine }
    }

    pub(crate) fn behave(&self, name: &str, b: Behaviour) {
        self.worker.behaviour.lock().unwrap().insert(name.into(), b);
    }

    pub(crate) async fn build(&self, g: &Arc<Graph>) -> (Result<Output, SolveError>, Arc<Told>) {
        self.build_as(g, "s", CancellationToken::new(), Need::Available).await
    }

    pub(crate) async fn build_as(
        &self,
        g: &Arc<Graph>,
        session: &str,
        cancel: CancellationToken,
        need: Need,
    ) -> (Result<Output, SolveError>, Arc<Told>) {
        let told = Arc::<Told>::default();
        let b = self.engine.begin("b", session, cancel, None);
        let r = b.solve(g.clone(), &[g.head.unwrap()], need, told.clone()).await;
        (r.map(|mut v| v.remove(0)), told)
    }

    /// Waits until `n` executions have begun.
    pub(crate) async fn until_ran(&self, n: usize) {
        while self.worker.ran.lock().unwrap().len() < n {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Builds graphs in few words.
#[derive(Default)]
pub(crate) struct G(pub(crate) GraphBuilder);

impl G {
    pub(crate) fn source(&mut self, id: &str) -> VertexId {
        self.add(Op::Source(SourceOp { identifier: id.into(), attrs: BTreeMap::new() }), &[], false)
    }

    pub(crate) fn run(&mut self, args: &str, inputs: &[VertexId]) -> VertexId {
        self.add(exec(args, inputs.len()), inputs, false)
    }

    pub(crate) fn run_uncached(&mut self, args: &str, inputs: &[VertexId]) -> VertexId {
        self.add(exec(args, inputs.len()), inputs, true)
    }

    /// Sees `path` of the last input only.
    pub(crate) fn run_with(&mut self, args: &str, inputs: &[VertexId], path: &str) -> VertexId {
        let Op::Exec(mut op) = exec(args, inputs.len()) else { unreachable!("an exec") };
        op.mounts.last_mut().unwrap().selector = path.into();
        self.add(Op::Exec(op), inputs, false)
    }

    fn add(&mut self, op: Op, inputs: &[VertexId], ignore_cache: bool) -> VertexId {
        let inputs = inputs.iter().map(|v| Edge { vertex: *v, output: 0 }).collect();
        let meta = VertexMeta { ignore_cache, ..VertexMeta::default() };
        self.0.add(Vertex { op, inputs, platform: None, constraints: vec![], meta }).unwrap()
    }

    pub(crate) fn head(self, v: VertexId) -> Arc<Graph> {
        Arc::new(self.0.finish(Some(Edge { vertex: v, output: 0 })))
    }
}

/// Runs `args` on input 0; the other inputs are bound read-only.
fn exec(args: &str, inputs: usize) -> Op {
    let mount = |i: usize| Mount {
        input: Some(i),
        selector: String::new(),
        dest: if i == 0 { "/".into() } else { format!("/m{i}") },
        output: (i == 0).then_some(0),
        readonly: i > 0,
        kind: MountKind::Bind,
        result_id: String::new(),
        content_cache: MountContentCache::Default,
    };
    Op::Exec(Box::new(ExecOp {
        meta: ExecMeta { args: vec![args.into()], ..ExecMeta::default() },
        mounts: (0..inputs).map(mount).collect(),
        network: NetMode::Unset,
        security: SecurityMode::Sandbox,
        secret_env: vec![],
        cdi_devices: vec![],
    }))
}
