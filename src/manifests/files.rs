//! Reading the manifest files, whole and bounded.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A larger file is no manifest.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// One file, or what kept us from reading it.
pub(super) struct File {
    pub path: PathBuf,
    pub text: io::Result<String>,
}

/// The file at `path`; of a folder its `*.yaml`, `*.yml` and `*.json` in the order of their names.
///
/// Links are followed, since a mounted ConfigMap consists of them; hidden files (and with them the
/// inner folders of such a mount) and sub-folders are not looked at.
pub(super) fn read(path: &Path) -> Vec<File> {
    let paths = if path.is_dir() { manifests_in(path) } else { Ok(vec![path.to_owned()]) };
    match paths {
        Ok(paths) => paths
            .into_iter()
            .map(|path| {
                let text = fs::File::open(&path).and_then(read_bounded);
                File { path, text }
            })
            .collect(),
        Err(error) => vec![File { path: path.to_owned(), text: Err(error) }],
    }
}

fn manifests_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if is_manifest_name(&path) && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_manifest_name(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !is_hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

pub(super) fn read_bounded(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    let bytes_count = from.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if bytes_count as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 4 MiB"));
    }
    Ok(text)
}

/// The same for two readings exactly when they gave the same names, contents and errors.
pub(super) fn digest(files: &[File]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut field = |kind: &[u8], bytes: &[u8]| {
        hash.update(kind);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for file in files {
        field(b"path", file.path.as_os_str().as_encoded_bytes());
        match &file.text {
            Ok(text) => field(b"text", text.as_bytes()),
            Err(error) => field(b"error", error.to_string().as_bytes()),
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(folder: &Path) -> Vec<String> {
        let name = |file: &File| file.path.file_name().map(|n| n.to_string_lossy().into_owned());
        read(folder).iter().filter_map(name).collect()
    }

    #[test]
    fn a_folder_is_its_manifests_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["b.yml", "a.yaml", "c.json", ".hidden.yaml", "README.md", "a.yaml.bak"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        fs::create_dir(folder.path().join("inner.yaml")).expect("created");
        assert_eq!(names(folder.path()), ["a.yaml", "b.yml", "c.json"]);
    }

    #[test]
    fn a_mounted_configmap_is_read_once_through_its_links() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("..2030_01_01");
        fs::create_dir(&inner).expect("created");
        fs::write(inner.join("a.yaml"), "x: 1").expect("written");
        symlink("..2030_01_01", folder.path().join("..data")).expect("linked");
        symlink("..data/a.yaml", folder.path().join("a.yaml")).expect("linked");
        let files = read(folder.path());
        assert_eq!(names(folder.path()), ["a.yaml"]);
        assert_eq!(files[0].text.as_deref().expect("it is read"), "x: 1");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_and_not_an_absence() {
        let folder = tempfile::tempdir().expect("a folder");
        symlink("nowhere", folder.path().join("a.yaml")).expect("linked");
        fs::write(folder.path().join("b.yaml"), [0xff, 0xfe]).expect("written");
        let large = fs::File::create(folder.path().join("c.yaml")).expect("created");
        large.set_len(FILE_BYTES_MAX + 1).expect("grown");
        assert!(read(folder.path()).iter().all(|file| file.text.is_err()));
        assert!(read(&folder.path().join("none"))[0].text.is_err());
    }

    #[test]
    fn a_digest_changes_with_names_and_contents_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.yaml");
        let digest_now = || digest(&read(folder.path()));
        let empty = digest_now();
        fs::write(&path, "x: 1").expect("written");
        let one = digest_now();
        fs::write(&path, "x: 1").expect("written");
        assert_eq!(digest_now(), one);
        fs::rename(&path, folder.path().join("b.yaml")).expect("renamed");
        assert!(![empty, one].contains(&digest_now()));
    }
}
