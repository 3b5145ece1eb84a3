//! Dockerfile in, graph out.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use insta::assert_snapshot;

use crate::world::{World, graph, lowered_in, options, render};

#[test]
fn stages_copies_and_commands() {
    assert_snapshot!(graph(
        "FROM base AS build\nARG V=1\nWORKDIR src\nCOPY a.c *.h ./\nRUN cc a.c\n\
         FROM scratch\nCOPY --from=build /src/a.out /bin/\nCMD [\"/bin/a.out\"]\n",
        &[("build-arg:V", "2")],
    ), @r#"
    0() docker-image://docker.io/library/base:latest@sha256:dd # [build 1/4] FROM docker.io/library/base:latest@sha256:dd
    1(0) file 0<-- mkdir /src 755 # [build 2/4] WORKDIR src
    2() local://context local.followpaths=["*.h","a.c"] local.sharedkeyhint=context # [internal] load build context
    3(1 2) file 0<-1 copy /a.c /src/ ; a0<-1 copy /*.h /src/ # [build 3/4] COPY a.c *.h ./
    4(3) exec ["/bin/sh", "-c", "cc a.c"] env "LANG=C V=2" in /src [/ bind 0] # [build 4/4] RUN cc a.c
    5(4) file -<-0 copy /src/a.out /bin/ # [stage-1 1/1] COPY --from=build /src/a.out /bin/
    head 5.0
    "#);
}

#[test]
fn unused_stages_are_left_out_and_targets_ignore_case() {
    assert_snapshot!(graph(
        "FROM base AS one\nRUN one\nFROM nowhere AS two\nRUN two\nFROM one AS three\nRUN three\n",
        &[("target", "ONE")],
    ), @r#"
    0() docker-image://docker.io/library/base:latest@sha256:dd # [one 1/2] FROM docker.io/library/base:latest@sha256:dd
    1(0) exec ["/bin/sh", "-c", "one"] env "LANG=C" in / [/ bind 0] # [one 2/2] RUN one
    head 1.0
    "#);
}

#[test]
fn every_kind_of_mount() {
    assert_snapshot!(graph(
        "FROM base AS other\nFROM base\nWORKDIR /w\n\
         RUN --mount=target=/ctx --mount=from=other,source=/x,target=here,rw \
         --mount=type=cache,target=/c,id=mine,sharing=locked,uid=5,mode=0700 --mount=type=tmpfs,target=/t,size=1k \
         --mount=type=secret,id=s,target=/s,mode=0440,gid=7 --mount=type=secret,id=e,env=TOKEN \
         --mount=type=ssh,id=k make\n",
        &[("build-arg:BUILDKIT_CACHE_MOUNT_NS", "ns"), ("shm-size", "65536")],
    ), @r#"
    0() docker-image://docker.io/library/base:latest@sha256:dd # [other 1/1] FROM docker.io/library/base:latest@sha256:dd
    1(0) file 0<-- mkdir /w 755 # [stage-1 2/3] WORKDIR /w
    2() file -<-- mkdir /cache 700 ChownOpt { user: Some(Id(5)), group: Some(Id(0)) } # [internal] setting cache mount permissions
    3() local://context local.sharedkeyhint=context # [internal] load build context
    4(1 2 3 0) exec ["/bin/sh", "-c", "make"] env "LANG=C SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0" in /w [/ bind 0] [/c cache ns/mine Locked 1/cache] [/ctx bind 2 ro] [/dev/shm tmpfs 65536 -] [/t tmpfs 1024 -] [/w/here bind 3/x] [/s secret s 440 0:7 -] [/run/buildkit/ssh_agent.0 ssh "k" 600 -] $TOKEN=e # [stage-1 3/3] RUN --mount=target=/ctx --mount=from=other,source=/x,target=here,rw --mount=type=cache,target=/c,id=mine,sharing=locked,uid=5,mode=0700 --mount=type=tmpfs,target=/t,size=1k --mount=type=secret,id=s,target=/s,mode=0440,gid=7 --mount=type=secret,id=e,env=TOKEN --mount=type=ssh,id=k make
    head 4.0
    "#);
}

#[test]
fn links_are_merged() {
    assert_snapshot!(graph(
        "FROM base\nCOPY --link --chown=1:2 a /a/\nADD --link --chmod=600 b /b\n",
        &[],
    ), @r#"
    0() docker-image://docker.io/library/base:latest@sha256:dd # [1/3] FROM docker.io/library/base:latest@sha256:dd
    1() local://context local.followpaths=["a","b"] local.sharedkeyhint=context # [internal] load build context
    2(1) file -<-0 copy /a /a/ ChownOpt { user: Some(Id(1)), group: Some(Id(2)) } group weak # [2/3] COPY --link --chown=1:2 a /a/
    3(0 2) merge [0, 1] group # [2/3] LINK COPY --link --chown=1:2 a /a/
    4(3 1) file 0<-1 copy /b /b 600 unpack # [3/3] ADD --link --chmod=600 b /b
    head 4.0
    "#);
}

#[test]
fn links_onto_nothing_are_plain() {
    assert_snapshot!(graph("FROM scratch\nCOPY --link a /a\n", &[]), @r#"
    0() local://context local.followpaths=["a"] local.sharedkeyhint=context # [internal] load build context
    1(0) file -<-0 copy /a /a group weak # [1/1] COPY --link a /a
    head 1.0
    "#);
}

#[test]
fn heredocs() {
    assert_snapshot!(graph(
        "FROM base\nARG WHO=me\nRUN <<EOF\necho 1\necho 2\nEOF\nRUN <<-'X'\n\t#!/bin/awk -f\n\tX\n\
         COPY <<A <<\"B\" /d/\nhi $WHO\nA\nhi $WHO\nB\n",
        &[],
    ), @r##"
    0() docker-image://docker.io/library/base:latest@sha256:dd # [1/4] FROM docker.io/library/base:latest@sha256:dd
    1(0) exec ["/bin/sh", "-c", "echo 1\necho 2\n"] env "LANG=C WHO=me" in / [/ bind 0] # [2/4] RUN <<EOF (echo 1...)
    2() file -<-- mkfile /X 755 "#!/bin/awk -f\n" # [internal] preparing inline document
    3(1 2) exec ["/bin/sh", "-c", "/dev/pipes/X"] env "LANG=C WHO=me" in / [/ bind 0] [/dev/pipes/ bind 1/ ro] # [3/4] RUN <<-'X' (#!/bin/awk -f)
    4() file -<-- mkfile /B 644 "hi $WHO\n" # [internal] preparing inline document
    5() file -<-- mkfile /A 644 "hi me\n" # [internal] preparing inline document
    6(3 5 4) file 0<-1 copy /A /d/ ; a0<-2 copy /B /d/ # [4/4] COPY <<A <<B /d/
    head 6.0
    "##);
}

#[test]
fn remote_sources() {
    let sum = "sha256:4777a697022e168eca02fab35449efaeedd624155d74389e5f565507a012dd61";
    assert_snapshot!(graph(
        &format!(
            "FROM scratch\nADD --checksum={sum} --unpack https://h.x/d/a.tar?q=1 /u/\n\
             ADD --keep-git-dir https://h.x/r.git?branch=b&subdir=s&submodules=0 git@h.x:r.git#v1 /g/\n"
        ),
        &[],
    ), @r#"
    0() https://h.x/d/a.tar?q=1 http.checksum=sha256:4777a697022e168eca02fab35449efaeedd624155d74389e5f565507a012dd61 http.filename=a.tar # [1/2] ADD --checksum=sha256:4777a697022e168eca02fab35449efaeedd624155d74389e5f565507a012dd61 --unpack https://h.x/d/a.tar?q=1 /u/
    1(0) file -<-0 copy /a.tar /u/ unpack # [1/2] ADD --checksum=sha256:4777a697022e168eca02fab35449efaeedd624155d74389e5f565507a012dd61 --unpack https://h.x/d/a.tar?q=1 /u/
    2() git://h.x/r.git#v1 git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.fullurl=git@h.x:r.git git.keepgitdir=true git.mountsshsock=default # [2/2] ADD --keep-git-dir https://h.x/r.git?branch=b&subdir=s&submodules=0 git@h.x:r.git#v1 /g/
    3() git://h.x/r.git#refs/heads/b:s git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.fullurl=https://h.x/r.git git.keepgitdir=true git.skipsubmodules=true # [2/2] ADD --keep-git-dir https://h.x/r.git?branch=b&subdir=s&submodules=0 git@h.x:r.git#v1 /g/
    4(1 3 2) file 0<-1 copy / /g/ ; a0<-2 copy / /g/ # [2/2] ADD --keep-git-dir https://h.x/r.git?branch=b&subdir=s&submodules=0 git@h.x:r.git#v1 /g/
    head 4.0
    "#);
}

#[test]
fn parents_and_excludes() {
    assert_snapshot!(graph(
        "FROM scratch\nCOPY --parents --exclude=*.o a/./b/c.txt x/*.md /p/\nCOPY --chmod=u+x --exclude=y . /\n",
        &[],
    ), @r#"
    0() local://context local.sharedkeyhint=context # [internal] load build context
    1(0) file -<-0 copy /a /p/ ["b/c.txt"] ["*.o"] ["/a/b/c.txt"] ; a0<-0 copy / /p/ ["x/*.md"] ["*.o"] # [1/2] COPY --parents --exclude=*.o a/./b/c.txt x/*.md /p/
    2(1 0) file 0<-1 copy / /u+x ["y"] # [2/2] COPY --chmod=u+x --exclude=y . /
    head 2.0
    "#);
}

#[test]
fn several_platforms_are_named() {
    assert_snapshot!(graph(
        "FROM --platform=$BUILDPLATFORM base AS cross\nARG TARGETARCH\nRUN x\nFROM base\nCOPY --from=cross /a /a\n",
        &[("platform", "linux/arm64,linux/amd64")],
    ), @r#"
    0() docker-image://docker.io/library/base:latest@sha256:dd on linux/arm64 # [linux/arm64 stage-1 1/2] FROM docker.io/library/base:latest@sha256:dd
    1() docker-image://docker.io/library/base:latest@sha256:dd # [linux/amd64 cross 1/2] FROM docker.io/library/base:latest@sha256:dd
    2(1) exec ["/bin/sh", "-c", "x"] env "LANG=C TARGETARCH=arm64" in / [/ bind 0] # [linux/amd64->arm64 cross 2/2] RUN x
    3(0 2) file 0<-1 copy /a /a # [linux/arm64 stage-1 2/2] COPY --from=cross /a /a
    head 3.0
    "#);
}

#[test]
fn no_cache_is_by_stage() {
    assert_snapshot!(graph(
        "FROM base AS a\nRUN a\nCOPY f /\nWORKDIR /x\nFROM a AS b\nRUN b\n",
        &[("no-cache", "A")],
    ), @r#"
    0() docker-image://docker.io/library/base:latest@sha256:dd # [a 1/4] FROM docker.io/library/base:latest@sha256:dd
    1(0) exec ["/bin/sh", "-c", "a"] env "LANG=C" in / [/ bind 0] no-cache # [a 2/4] RUN a
    2() local://context local.followpaths=["f"] local.sharedkeyhint=context # [internal] load build context
    3(1 2) file 0<-1 copy /f / no-cache # [a 3/4] COPY f /
    4(3) file 0<-- mkdir /x 755 # [a 4/4] WORKDIR /x
    5(4) exec ["/bin/sh", "-c", "b"] env "LANG=C" in /x [/ bind 0] # [b 1/1] RUN b
    head 5.0
    "#);
}

#[test]
fn equal_stages_are_one_vertex() {
    assert_snapshot!(graph(
        "FROM base AS a\nRUN same\nFROM base AS b\nRUN same\nFROM scratch\nCOPY --from=a /x /1\nCOPY --from=b /x /2\n",
        &[],
    ), @r#"
    0() docker-image://docker.io/library/base:latest@sha256:dd # [b 1/2] FROM docker.io/library/base:latest@sha256:dd
    1(0) exec ["/bin/sh", "-c", "same"] env "LANG=C" in / [/ bind 0] # [b 2/2] RUN same
    2(1) file -<-0 copy /x /1 # [stage-2 1/2] COPY --from=a /x /1
    3(2 1) file 0<-1 copy /x /2 # [stage-2 2/2] COPY --from=b /x /2
    head 3.0
    "#);
}

#[test]
fn triggers_run_first() {
    assert_snapshot!(graph("FROM triggers\nRUN after\n", &[]), @r#"
    0() docker-image://docker.io/library/triggers:latest@sha256:dd # [1/2] FROM docker.io/library/triggers:latest@sha256:dd
    1() docker-image://docker.io/library/base:latest@sha256:dd # FROM docker.io/library/base:latest@sha256:dd
    2(0 1) file 0<-1 copy /x /y # [2/4] ONBUILD COPY --from=base /x /y
    3(2) exec ["/bin/sh", "-c", "after"] env "LANG=C T=1" in /w [/ bind 0] # [3/4] RUN after
    head 3.0
    "#);
}

#[test]
fn named_contexts_replace_images_and_stages() {
    assert_snapshot!(graph(
        "FROM base AS one\nRUN never\nFROM image AS two\nCOPY --from=one sub/f /f\nCOPY --from=code /a /a\n",
        &[
            ("context:one", "local:dir"),
            ("sharedkey:localdir:one", "k"),
            ("local-sessionid:dir", "s1"),
            ("context:image::linux/amd64", "docker-image://base"),
            ("context:code", "https://h.x/r.git#main"),
        ],
    ), @r#"
    0() docker-image://docker.io/library/base:latest@sha256:dd # [context image::linux/amd64] docker.io/library/base:latest@sha256:dd
    1() local://dir local.excludepatterns=["*.log"] local.followpaths=["sub/f"] local.session=s1 local.sharedkeyhint=context:one-k # [context one] load from client
    2(0 1) file 0<-1 copy /sub/f /f # [two 1/3] COPY --from=one sub/f /f
    3() git://h.x/r.git#main git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.fullurl=https://h.x/r.git # [internal] load git source https://h.x/r.git#main
    4(2 3) file 0<-1 copy /a /a # [two 2/3] COPY --from=code /a /a
    head 4.0
    "#);
}

#[test]
fn ignored_files_and_sessions_go_to_the_context() {
    let world = World { ignore: "# no\n*.o\n!/keep.o\n", ..World::new() };
    let mut options = options(&[]);
    options.session = Some("s0".to_owned());
    let lowered = lowered_in(&world, "FROM scratch\nCOPY a b/c /\nADD ../d /d\n", &options).unwrap();
    assert_snapshot!(render(&lowered.graph), @r#"
    0() local://context local.excludepatterns=["*.o","!keep.o"] local.followpaths=["a","b/c","d"] local.session=s0 local.sharedkeyhint=context # [internal] load build context
    1(0) file -<-0 copy /a / ; a0<-0 copy /b/c / # [1/2] COPY a b/c /
    2(1 0) file 0<-1 copy /d /d unpack # [2/2] ADD ../d /d
    head 2.0
    "#);
}

#[test]
fn remote_contexts() {
    let text = "FROM scratch\nCOPY f /\n";
    assert_snapshot!(graph(text, &[("context", "https://h.x/r.git#b:d"), ("build-arg:SOURCE_DATE_EPOCH", "9")]), @r#"
    0() git://h.x/r.git#b:d git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.fullurl=https://h.x/r.git git.mtime=commit # [internal] load git source https://h.x/r.git#b:d
    1(0) file -<-0 copy /f / # [1/1] COPY f /
    head 1.0
    "#);
    let mut http = options(&[("context", "https://h.x/c.tar"), ("contextsubdir", "in")]);
    if let frontend::options::ContextSpec::Http { archive, .. } = &mut http.context.spec {
        *archive = true;
    }
    assert_snapshot!(render(&lowered_in(&World::new(), text, &http).unwrap().graph), @r#"
    0() https://h.x/c.tar http.filename=context # [internal] load remote build context
    1(0) file -<-0 copy /context / unpack # -
    2(1) file -<-0 copy /in / # -
    3(2) file -<-0 copy /f / # [1/1] COPY f /
    head 3.0
    "#);
}

#[test]
fn inputs_are_taken_over() {
    let mut world = World::new();
    let inner = lowered_in(&world, "FROM base\nRUN inner\n", &options(&[])).unwrap().graph;
    world.inputs.insert("0".to_owned(), inner);
    let config = BASE64_STANDARD.encode(r#"{"config": {"Env": ["INPUT=1"]}}"#);
    let metadata = format!(r#"{{"containerimage.config": "{config}"}}"#);
    let options = options(&[("context:up", "input:0"), ("input-metadata:0", &metadata)]);
    let lowered = lowered_in(&world, "FROM up\nRUN outer\n", &options).unwrap();
    let source = |vertex: usize| lowered.graph.vertices()[vertex].meta.locations[0].source;
    assert_eq!((source(1), source(2), lowered.graph.sources.len()), (1, 0, 2));
    assert_snapshot!(render(&lowered.graph), @r#"
    0() docker-image://docker.io/library/base:latest@sha256:dd # [1/2] FROM docker.io/library/base:latest@sha256:dd
    1(0) exec ["/bin/sh", "-c", "inner"] env "LANG=C" in / [/ bind 0] # [2/2] RUN inner
    2(1) exec ["/bin/sh", "-c", "outer"] env "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in / [/ bind 0] # [1/2] RUN outer
    head 2.0
    "#);
}

#[test]
fn users_and_times_of_workdir() {
    assert_snapshot!(graph(
        "FROM base\nUSER app:9\nWORKDIR /x\nUSER 5\nWORKDIR y\n",
        &[("build-arg:SOURCE_DATE_EPOCH", "1")],
    ), @r#"
    0() docker-image://docker.io/library/base:latest@sha256:dd # [1/3] FROM docker.io/library/base:latest@sha256:dd
    1(0) file 0<-- mkdir /x 755 ChownOpt { user: Some(Name { name: "app", input: Vertex(0) }), group: Some(Id(9)) } @1000000000 # [2/3] WORKDIR /x
    2(1) file 0<-- mkdir /x/y 755 ChownOpt { user: Some(Id(5)), group: None } @1000000000 # [3/3] WORKDIR y
    head 2.0
    "#);
}
