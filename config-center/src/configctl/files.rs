//! `-f`: objects from files, folders and standard input, with the names that messages show.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use config_center_core::fleet::inventory::{Loaded, Loading, load};

use super::exit::{Exit, Failure};

/// Endings of the files that are read in a folder; a file named by itself may have any.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads everything; fails when something is wrong with any of it, and tells all of it.
pub(crate) fn objects(paths: &[PathBuf]) -> Result<Vec<Loaded>, Failure> {
    let Loading { objects, problems } = read(paths)?;
    if problems.is_empty() {
        return Ok(objects);
    }
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(Failure::invalid(lines.join("\n")))
}

pub(crate) fn read(paths: &[PathBuf]) -> Result<Loading, Failure> {
    let mut loading = Loading::default();
    for path in paths {
        for (name, text) in texts(path)? {
            let Loading { objects, problems } = load(&name, &text);
            loading.objects.extend(objects);
            loading.problems.extend(problems);
        }
    }
    Ok(loading)
}

fn texts(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    if path == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().lock().read_to_string(&mut text);
        read.map_err(|error| local("standard input", &error))?;
        return Ok(vec![("-".into(), text)]);
    }
    let mut files = Vec::new();
    if path.is_dir() {
        find(path, &mut files)?;
        if files.is_empty() {
            let message = format!("{} holds no .yaml, .yml or .json file", path.display());
            return Err(Failure::new(Exit::LocalIo, message));
        }
    } else {
        files.push(path.to_owned());
    }
    files
        .into_iter()
        .map(|file| {
            let name = file.display().to_string();
            let text = fs::read_to_string(&file).map_err(|error| local(&name, &error))?;
            Ok((name, text))
        })
        .collect()
}

/// Ordered by name, so that the same folder is always read in the same order.
fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let unreadable = |error: io::Error| local(&folder.display().to_string(), &error);
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    paths.sort();
    for path in paths {
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let ending = path
            .extension()
            .and_then(|ending| ending.to_str())
            .unwrap_or_default();
        if is_hidden {
            continue;
        } else if path.is_dir() {
            find(&path, files)?;
        } else if ENDINGS.contains(&ending) {
            files.push(path);
        }
    }
    Ok(())
}

fn local(name: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::LocalIo, format!("cannot read {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_in_order_and_only_for_objects() {
        let folder = tempfile::tempdir().unwrap();
        let host = |name: &str| {
            format!("apiVersion: logconf/v1\nkind: Host\nmetadata: {{name: {name}}}\nspec: {{}}\n")
        };
        fs::create_dir(folder.path().join("sub")).unwrap();
        for (file, name) in [
            ("b.yaml", "b"),
            ("a.yml", "a"),
            ("sub/c.json", "c"),
            (".hidden.yaml", "x"),
        ] {
            fs::write(folder.path().join(file), host(name)).unwrap();
        }
        fs::write(folder.path().join("README.md"), "not an object").unwrap();
        let objects = objects(&[folder.path().to_owned()]).unwrap();
        let names: Vec<String> = objects
            .iter()
            .map(|loaded| loaded.object.metadata().name.to_string())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn what_cannot_be_read_is_a_local_fault() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("missing.yaml")] {
            assert_eq!(read(&[path]).unwrap_err().exit, Exit::LocalIo);
        }
        let file = folder.path().join("x.yaml");
        fs::write(&file, "kind: x\n").unwrap();
        let failure = objects(std::slice::from_ref(&file)).unwrap_err();
        assert_eq!(failure.exit, Exit::Invalid);
        assert!(
            failure
                .message
                .starts_with(&format!("{}:1:1: ", file.display())),
            "{}",
            failure.message
        );
    }
}
