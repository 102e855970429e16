//! The demo system as a person meets it: the page, the shell, large and many downloads, the way out.

use bulkhead_test::{Boot, Ending, Result, System, seconds};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufReader, Write};
use std::path::PathBuf;

fn demo() -> Result<System> {
    let mut system = Boot::policy_file("policy/demo.toml")?.demo_disk()?.network()?.start()?;
    system.wait_ready()?;
    Ok(system)
}

#[test]
fn a_page_goes_from_the_disk_to_the_network() -> Result<()> {
    let system = demo()?;
    let page = system.http().get("/")?;
    assert_eq!(page.status, 200);
    assert!(page.headers["content-type"].starts_with("text/html"));
    assert_eq!(page.body, fs::read(xtask::root().join("site/index.html"))?);
    system.shutdown()
}

#[test]
fn http_nonsense_is_answered_and_survived() -> Result<()> {
    let system = demo()?;
    let http = system.http();
    assert_eq!(http.get("/no-such-file")?.status, 404);
    assert_eq!(http.get("/../../etc/passwd")?.status / 100, 4);
    assert_eq!(http.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")?.status, 405);
    assert_eq!(http.send("nonsense\r\n\r\n")?.status, 400);
    assert_eq!(http.send(&format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20_000)))?.status, 414);
    let mut silent = http.connect()?;
    silent.write_all(b"GET / HT")?;
    drop(silent);
    let head = http.send("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let part = http.send("GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=0-14\r\nConnection: close\r\n\r\n")?;
    assert_eq!((part.status, part.body.as_slice()), (206, &fs::read(xtask::root().join("site/index.html"))?[..15]));
    let listing = http.get("/files/")?;
    assert!(String::from_utf8_lossy(&listing.body).contains("readme.txt"));
    assert_eq!(http.get("/")?.status, 200);
    Ok(())
}

#[test]
fn one_connection_carries_many_requests() -> Result<()> {
    let system = demo()?;
    let mut stream = system.http().connect()?;
    let mut reader = BufReader::new(stream.try_clone()?);
    for _ in 0..20 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        assert_eq!(bulkhead_test::read_response(&mut reader, false)?.status, 200);
    }
    Ok(())
}

#[test]
fn the_shell_knows_its_domains_and_refuses_nonsense() -> Result<()> {
    let mut system = demo()?;
    let domains = system.shell("domains", seconds(20))?;
    for name in ["policy", "xenstore", "console", "block", "net", "web"] {
        assert!(domains.contains(name), "{name} is not in:\n{domains}");
    }
    for command in ["help", "devices", "links", "grants", "events", "log web"] {
        assert!(!system.shell(command, seconds(20))?.trim().is_empty(), "{command} printed nothing");
    }
    assert!(system.shell("frobnicate", seconds(20))?.contains("help"));
    system.type_bytes(b"\x1b[A\xff\xfe\x00\x80 garbage\r")?;
    assert!(system.shell("domains", seconds(20))?.contains("web"));
    system.shutdown()
}

#[test]
fn a_destroyed_service_hurts_nobody_else() -> Result<()> {
    let mut system = demo()?;
    let at = system.position();
    system.shell("destroy web", seconds(20))?;
    system.wait_from(at, "web", seconds(20))?;
    let domains = system.shell("domains", seconds(20))?;
    assert!(domains.contains("block") && domains.contains("net"), "{domains}");
    system.shutdown()
}

/// A disk of the user's with one large file, made once.
fn large_disk() -> Result<(PathBuf, Vec<u8>)> {
    const BYTES: usize = 256 << 20;
    let (folder, image) = (xtask::target().join("large-site"), xtask::target().join("large.img"));
    let mut content = vec![0; BYTES];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in content.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    let hash = Sha256::digest(&content).to_vec();
    if !image.exists() {
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("large.bin"), &content)?;
        fs::write(folder.join("small.bin"), &content[..1 << 20])?;
        xtask::disk::ext4(&folder, &image, 320)?;
        fs::remove_dir_all(&folder)?;
    }
    Ok((image, hash))
}

#[test]
fn a_large_file_and_many_downloads_arrive_whole_while_the_shell_answers() -> Result<()> {
    let (image, hash) = large_disk()?;
    let mut system = Boot::policy_file("policy/demo.toml")?.disk(&image, false).network()?.start()?;
    system.wait_ready()?;
    let http = system.http();

    let large = std::thread::spawn(move || http.get("/large.bin"));
    assert!(system.shell("domains", seconds(30))?.contains("web"));
    let body = large.join().map_err(|_| bulkhead_test::error("the download panicked"))??.body;
    assert_eq!(Sha256::digest(&body).to_vec(), hash);

    let expected = body[..1 << 20].to_vec();
    let downloads: Vec<_> = (0..32).map(|_| std::thread::spawn(move || http.get("/small.bin"))).collect();
    assert!(system.shell("links", seconds(30))?.contains("web"));
    for download in downloads {
        let body = download.join().map_err(|_| bulkhead_test::error("a download panicked"))??.body;
        assert!(body == expected, "a parallel download differs");
    }
    system.shutdown()
}

#[test]
fn power_off_leaves_by_acpi() -> Result<()> {
    let mut system = demo()?;
    system.type_text("shutdown\r")?;
    assert_eq!(system.wait_end(seconds(30))?, Ending::PoweredOff);
    Ok(())
}
