//! What the daemon can do, under the names by which clients ask (BuildKit's `solver/pb/caps.go` and
//! `frontend/gateway/pb/caps.go`). A client does without what is not listed, or says so.

use proto::caps::ApiCap;

/// Calls of LLBBridge and what they take.
const FRONTEND: &[&str] = &[
    "solve.base",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "gateway.exec",
    "gateway.exec.extrahosts",
    "gateway.exec.secretenv",
    "gateway.exec.signals",
    "gateway.exec.filesystem",
    "source.metaresolver",
    "source.metaresolver.image.attestations",
];

/// Operations and their settings. (`soruce` is how BuildKit spells it.)
const LLB: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "source.local.metadatatransfer",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.subdir",
    "source.git.checksum",
    "source.git.skipsubmodules",
    "source.git.httpauth",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.mtime",
    "source.git.fetchbycommit",
    "source.git.bundle",
    "source.git.checkoutbundle",
    "source.git.signatureverify",
    "source.http",
    "source.http.auth",
    "source.http.header",
    "source.http.signatureverify",
    "source.imageblob",
    "source.http.checksum",
    "source.http.perm",
    "soruce.http.uidgid",
    "source.ocilayout",
    "source.buildop.llbfilename",
    "exec.meta.base",
    "exec.meta.cdi",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.meta.removemountstubs.recursive",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.mount.cache.content",
    "exec.cgroup",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.rm.nofollowsymlink",
    "file.copy.includeexcludepatterns",
    "file.copy.requiredpaths",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "file.symlink.create",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "mergeop",
    "diffop",
    "passthroughop",
    "cache.gha",
    "cache.s3",
    "cache.azblob",
    "exporter.image.attestations",
    "exporter.sourcedateepoch",
    "exporter.multiple",
    "gc.freespacefilter",
];

/// Capabilities of LLBBridge.
pub(super) fn frontend() -> Vec<ApiCap> {
    FRONTEND.iter().map(|id| cap(id)).collect()
}

/// Capabilities of LLB and of the exporters.
pub(super) fn llb() -> Vec<ApiCap> {
    LLB.iter().map(|id| cap(id)).collect()
}

fn cap(id: &str) -> ApiCap {
    ApiCap { id: id.to_owned(), enabled: true, ..ApiCap::default() }
}
