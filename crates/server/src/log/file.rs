//! A log file that begins anew when it is full: `emqx.log`, then `emqx.log.1`, `emqx.log.2`, …

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file with its older selves.
pub(crate) struct RotatingFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: Option<u64>,
    /// Files kept, the newest included.
    count: u32,
}

impl RotatingFile {
    /// Opens the file to append to it; makes its directory.
    pub(crate) fn open(path: PathBuf, bytes_max: Option<u64>, count: u32) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = append_to(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            bytes,
            bytes_max,
            count: count.max(1),
        })
    }

    /// Appends whole lines; a new file begins before them if they would not fit.
    pub(crate) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            let full = self
                .bytes_max
                .is_some_and(|max| self.bytes + line.len() as u64 > max);
            if full && self.bytes > 0 {
                self.rotate()?;
            }
            self.file.write_all(line)?;
            self.bytes += line.len() as u64;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.count).rev() {
            let from = if number == 1 {
                self.path.clone()
            } else {
                self.older(number - 1)
            };
            match fs::rename(from, self.older(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.count == 1 {
            fs::remove_file(&self.path)?;
        }
        self.file = append_to(&self.path)?;
        self.bytes = 0;
        Ok(())
    }

    fn older(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_in_order() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log/emqx.log");
        let mut file = RotatingFile::open(path, Some(20), 3).expect("writable");
        for number in 0..8 {
            file.write(format!("line {number:04}\n").as_bytes())
                .expect("writable");
        }
        let read = |name: &str| {
            fs::read_to_string(dir.path().join("log").join(name)).expect("it is there")
        };
        assert_eq!(read("emqx.log"), "line 0006\nline 0007\n");
        assert_eq!(read("emqx.log.1"), "line 0004\nline 0005\n");
        assert_eq!(read("emqx.log.2"), "line 0002\nline 0003\n");
        assert!(!dir.path().join("log/emqx.log.3").exists());
    }

    #[test]
    fn a_restart_appends_and_a_single_file_starts_over() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("emqx.log");
        for line in ["first\n", "second\n"] {
            let mut file = RotatingFile::open(path.clone(), None, 1).expect("writable");
            file.write(line.as_bytes()).expect("writable");
        }
        assert_eq!(
            fs::read_to_string(&path).expect("it is there"),
            "first\nsecond\n"
        );
        let mut file = RotatingFile::open(path.clone(), Some(15), 1).expect("writable");
        file.write(b"a third line\n").expect("writable");
        assert_eq!(
            fs::read_to_string(&path).expect("it is there"),
            "a third line\n"
        );
    }
}
