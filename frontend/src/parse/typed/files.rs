//! COPY and ADD.

use crate::ast::{AddCommand, Command, CopyCommand, Heredoc, InlineFile, SourcesAndDest};
use crate::parse::arguments::heredoc;
use crate::parse::flags::Kind;
use crate::parse::problem::Problem;
use crate::parse::typed::Request;

pub(super) fn copy(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    two_arguments(request, "COPY")?;
    let flags = request.flags(&[
        ("chown", Kind::Text),
        ("from", Kind::Text),
        ("chmod", Kind::Text),
        ("link", Kind::Bool),
        ("exclude", Kind::Texts),
        ("parents", Kind::Bool),
    ])?;
    Ok(Command::Copy(CopyCommand {
        files: sources(request, "COPY")?,
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link") == Some(true),
        parents: flags.switch("parents") == Some(true),
        excludes: flags.texts("exclude"),
    }))
}

pub(super) fn add(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    two_arguments(request, "ADD")?;
    let flags = request.flags(&[
        ("chown", Kind::Text),
        ("chmod", Kind::Text),
        ("link", Kind::Bool),
        ("keep-git-dir", Kind::Bool),
        ("checksum", Kind::Text),
        ("unpack", Kind::Bool),
        ("exclude", Kind::Texts),
    ])?;
    Ok(Command::Add(AddCommand {
        files: sources(request, "ADD")?,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link") == Some(true),
        keep_git_dir: flags.switch("keep-git-dir"),
        checksum: flags.text("checksum"),
        unpack: flags.switch("unpack"),
        excludes: flags.texts("exclude"),
    }))
}

fn two_arguments(request: Request<'_>, keyword: &str) -> Result<(), Vec<Problem>> {
    if request.args().len() >= 2 {
        return Ok(());
    }
    Err(vec![
        Problem::new(format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
        ))
        .about(request.args().first().map_or(&request.statement.keyword, |argument| argument)),
    ])
}

/// The last argument is the destination; the others are paths or here-documents.
fn sources(request: Request<'_>, keyword: &str) -> Result<SourcesAndDest, Vec<Problem>> {
    let Some((dest, words)) = request.args().split_last() else {
        return Err(vec![Problem::new(format!("{keyword} has no destination"))]);
    };
    let marker = |word: &str| heredoc(word).ok().flatten();
    if marker(dest).is_some() {
        let message = format!("{keyword} cannot accept a heredoc as a destination");
        return Err(vec![Problem::new(message).about(dest)]);
    }
    let mut files = SourcesAndDest { paths: Vec::new(), files: Vec::new(), dest: dest.clone() };
    for word in words {
        match marker(word) {
            None => files.paths.push(word.clone()),
            Some(marker) => files.files.push(InlineFile {
                data: content(&marker, request.heredocs),
                expand: marker.expand,
                name: marker.name,
            }),
        }
    }
    Ok(files)
}

/// The content of the last here-document of the marker's name; a name used twice means the last one both times.
fn content(marker: &Heredoc, heredocs: &[Heredoc]) -> String {
    let content =
        heredocs.iter().rfind(|heredoc| heredoc.name == marker.name).map(|heredoc| heredoc.content.clone());
    Heredoc { content: content.unwrap_or_default(), ..marker.clone() }.chomped()
}
