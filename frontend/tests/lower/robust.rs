//! Whatever a file holds, lowering ends with a graph or an error.

use frontend::inspect::inspect;
use proptest::prelude::*;

/// Pieces of which files are put together, right and wrong ones.
const PIECES: &[&str] = &[
    "FROM base",
    "FROM scratch AS a",
    "FROM a AS b",
    "FROM $X",
    "FROM --platform=$TARGETPLATFORM base",
    "ARG X=${Y:-1}",
    "ARG X",
    "ENV A=$X B=${A:?no}",
    "ENV K v $X",
    "RUN echo $A",
    "RUN --mount=from=a,target=/t x",
    "RUN --mount=type=cache,target=$A x",
    "RUN --mount=type=secret,id=s,env=$X x",
    "RUN <<E\n#!/x\nE",
    "COPY --from=0 x y",
    "COPY --from=b --link --chown=$X . $A",
    "COPY --parents a/./b c/",
    "COPY <<F /d\n$A\nF",
    "ADD https://h/x?$X /",
    "ADD git@h:r.git#$X:d /g",
    "ADD --checksum=$X https://h/f /",
    "WORKDIR $A",
    "WORKDIR ../..",
    "USER $X:$A",
    "EXPOSE $X-9/udp",
    "VOLUME $A /v",
    "LABEL $A=$X",
    "CMD x",
    "ENTRYPOINT []",
    "SHELL [\"x\"]",
    "STOPSIGNAL $X",
    "HEALTHCHECK CMD x",
    "ONBUILD COPY --from=a x y",
    "ONBUILD RUN $A",
    "MAINTAINER $X",
    "# check=error=true",
    "# escape=`",
    "ENV BUILDKIT_SBOM_SCAN_STAGE=1",
    "ARG SOURCE_DATE_EPOCH=a",
    "COPY --from=",
    "${",
    "FROM",
];

proptest! {
    #[test]
    fn files_of_pieces(indexes in prop::collection::vec(0..PIECES.len(), 0..24)) {
        let text: String = indexes.iter().map(|&index| format!("{}\n", PIECES[index])).collect();
        let record = inspect("f", text.as_bytes());
        // Each file is lowered or has an error, and the two never come together.
        prop_assert_ne!(record["convert_error"].is_null(), record["llb"].is_null(), "{}", text);
    }

    #[test]
    fn files_of_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut text = b"FROM base\nRUN ".to_vec();
        text.extend(bytes);
        let record = inspect("f", &text);
        prop_assert_ne!(record["convert_error"].is_null(), record["llb"].is_null());
    }
}
