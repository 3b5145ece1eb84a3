//! What large Dockerfiles cost to parse and to lower, each in two sizes: linear work takes twice as long for the larger.
//!
//! `cargo run --release -p frontend --example lower_cost`

use std::time::{Duration, Instant};

use frontend::lower::{ImageRequest, LocalRequest, Resolved, ResolvedImage, TimeRequest, lower};
use frontend::options::BuildOptions;
use frontend::parse::parse;
use solver::Graph;
use solver::op::Platform;

/// The best of so many runs counts.
const RUNS: usize = 7;

/// Every image exists and has one layer.
struct World(ResolvedImage);

impl Resolved for World {
    fn image(&self, _: &ImageRequest) -> Option<&ResolvedImage> {
        Some(&self.0)
    }

    fn dockerignore(&self) -> &[u8] {
        b"*.log\n"
    }

    fn context_dockerignore(&self, _: &LocalRequest) -> Option<&[u8]> {
        Some(b"")
    }

    fn input(&self, _: &str) -> Option<&Graph> {
        None
    }

    fn source_time(&self, _: &TimeRequest) -> Option<Option<i64>> {
        None
    }
}

/// A kind of file, by the number of its instructions.
type Shape = (&'static str, fn(usize) -> String);

const SHAPES: [Shape; 8] = [
    ("mixed instructions", mixed),
    ("chained stages", |n| {
        (1..n / 2).fold("FROM base AS s0\n".into(), |f, i| {
            f + &format!("FROM s{} AS s{i}\nENV A{}=1\n", i - 1, i % 50)
        })
    }),
    ("stages side by side", |n| {
        let stages: String =
            (0..n / 3).map(|i| format!("FROM base AS s{i}\nENV X={i}\nRUN make\n")).collect();
        let copies: String = (0..n / 3).map(|i| format!("COPY --from=s{i} /o /o{i}\n")).collect();
        format!("{stages}FROM base\n{copies}")
    }),
    ("images of their own", |n| {
        (0..n).fold("FROM scratch\n".into(), |f, i| f + &format!("COPY --from=image{i} /f /\n"))
    }),
    ("unset variables", |n| {
        (0..n).fold("FROM base\nENV A0=1 A1=2 A2=3\n".into(), |f, i| f + &format!("LABEL l{i}=$U{i}\n"))
    }),
    ("comments", |n| {
        format!("FROM base\n{}RUN true\n", "# a comment = of some length, as they are\n".repeat(n))
    }),
    ("a long line", |n| format!("FROM base\nRUN {}true\n", "a word and another && \\\n".repeat(n))),
    ("a here-document", |n| {
        format!("FROM base\nRUN <<E\n{}E\n", "a line of a script with $VARS\n".repeat(n))
    }),
];

/// What real files hold, in their usual shares.
fn mixed(n: usize) -> String {
    let mut file = String::from("ARG VERSION=1\nFROM base AS build\nARG VERSION\n");
    for i in 0..n.saturating_sub(3) / 10 {
        file += &format!(
            "# step {i}\nENV NAME{m}=\"value of ${{VERSION}}\"\nWORKDIR /src/{i}\nCOPY --chown=1:1 package{i}.json ./\n\
             RUN --mount=type=cache,target=/cache \\\n    make VERSION=$VERSION step{i} && \\\n    rm -rf /tmp/*\n\
             LABEL org.example.l{m}=\"$NAME{m}\"\nEXPOSE {port}/tcp\nRUN [\"./configure\", \"--prefix=/usr/{i}\"]\n\
             COPY <<EOF /etc/conf{i}\nname = $VERSION\nEOF\nUSER app{m}\nCMD [\"serve\", \"{i}\"]\n",
            m = i % 20,
            port = 1024 + i % 20,
        );
    }
    file
}

/// How long it takes until the result is there; freeing it afterwards keeps nobody waiting.
fn best<T>(mut work: impl FnMut() -> T) -> Duration {
    let run = |_| {
        let begun = Instant::now();
        let _result = work();
        begun.elapsed()
    };
    (0..RUNS).map(run).min().unwrap_or_default()
}

fn main() {
    let world = World(ResolvedImage {
        config: br#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},
            "rootfs":{"type":"layers","diff_ids":["sha256:1"]}}"#
            .to_vec(),
        ..ResolvedImage::default()
    });
    let platform = Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() };
    let options = BuildOptions::new(platform);
    eprintln!("{:24} {:>8} {:>9} {:>9} {:>9}", "", "n", "KiB", "parse", "lower");
    for (name, shape) in SHAPES {
        for n in [10_000, 20_000] {
            let file = shape(n);
            let (document, errors) = parse("Dockerfile", file.as_bytes());
            let lowered = lower(&document, &options, None, &world);
            if let (Some(error), _) | (None, Some(error)) =
                (errors.first().map(ToString::to_string), lowered.err().map(|e| e.to_string()))
            {
                eprintln!("{name}: {error}");
                continue;
            }
            let parsing = best(|| parse("Dockerfile", file.as_bytes()));
            let lowering = best(|| lower(&document, &options, None, &world));
            let ms = |d: Duration| d.as_secs_f64() * 1e3;
            eprintln!("{name:24} {n:8} {:9} {:9.1} {:9.1}", file.len() >> 10, ms(parsing), ms(lowering));
        }
    }
}
