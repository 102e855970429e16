//! A domain's image is replaced while its clients work, and gives way to the old one if it is no good.

use crate::policies::BASE;
use crate::restart::{BLOCK, EXPORT, check_image, client, expect_inventory, goes_on, inventory};
use bulkhead_test::{Boot, Result, System, error, seconds};
use std::fs;
use xtask::{images, target};

/// What the block domain says when it takes a predecessor's place, and what its new version says.
const GOES_ON: (&[u8], &[u8]) = (b": goes on", b": GOES ON");

/// The block domain's image, of another version by its looks.
fn new_version() -> Result<Vec<u8>> {
    let mut image = images::read(&images::build(images::IMAGES)?, "block")?;
    let at = image.windows(GOES_ON.0.len()).position(|window| window == GOES_ON.0);
    let at = at.ok_or_else(|| error("block does not say that it goes on"))?;
    image[at..at + GOES_ON.1.len()].copy_from_slice(GOES_ON.1);
    Ok(image)
}

/// The same program, whose first instruction is none (UD2).
fn that_dies_at_once() -> Result<Vec<u8>> {
    let mut image = new_version()?;
    let number =
        |at: usize| image.get(at..at + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap_or([0; 8])));
    // ELF-64: e_entry at 24, e_phoff at 32; headers of 56 bytes, with offset, address and size at 8, 16 and 32.
    let (entry, first) = (number(24), number(32) as usize);
    let headers = (0..16).map(|index| first + index * 56);
    let at = headers
        .map(|header| (number(header + 8), number(header + 16), number(header + 32)))
        .find_map(|(offset, address, bytes)| {
            (address..address + bytes).contains(&entry).then(|| offset + entry - address)
        })
        .ok_or_else(|| error("block has no entry point"))? as usize;
    image[at..at + 2].copy_from_slice(&[0x0f, 0x0b]);
    Ok(image)
}

/// Asks for a replacement and waits for what is to be said of it; the client goes on then.
fn replace(system: &mut System, image: &str, said: &str) -> Result<()> {
    let position = system.position();
    system.shell(&format!("replace block with {image}"), seconds(30))?;
    system.wait_from(position, said, seconds(60))?;
    goes_on(system)
}

#[test]
fn an_image_is_replaced_under_load_and_one_that_is_no_good_gives_way() -> Result<()> {
    let image = target().join(format!("replace-{}.img", std::process::id()));
    fs::write(&image, vec![0; 8 << 20])?;
    // What these images are does not matter: the bundle gets other bytes under their names, or they are no disk drivers.
    // `hello` counts for longer than a trial takes.
    let block = format!(
        "{}arguments = \"ticks=60\"\nreplacements = [\"web\", \"net\", \"hello\", \"probe\"]\n",
        BLOCK.trim_start_matches('\n')
    );
    let disks = "disks = [{ from = \"block\", export = \"all\", device = \"xvda\" }]";
    let policy = format!("{BASE}{block}{EXPORT}{}", client("disk-survive", disks));
    let boot = Boot::policy(&policy).image("client").image("probe").disk(&image, true);
    let boot = boot.replace("web", new_version()?).replace("net", vec![0x7f; 5000]);
    let mut system = boot.replace("probe", that_dies_at_once()?).start()?;
    system.wait_ready()?;
    goes_on(&mut system)?;
    replace(&mut system, "web", "runs image `web` now")?;
    let before = inventory(&mut system)?;
    assert!(system.log("block").iter().any(|line| line.ends_with(": GOES ON")), "the old version went on");

    // Refused by its looks: nobody notices.
    let restarts = |system: &System| system.text().matches("runs again").count();
    let so_far = restarts(&system);
    for (name, why) in [("net", "its image `net`"), ("xenstore", "the policy lets `block` run"), ("x", "of others")] {
        replace(&mut system, name, why)?;
    }
    assert_eq!(restarts(&system), so_far, "a refused image has cost a restart");
    // One that ends at once, one that serves nobody: the one before comes back.
    replace(&mut system, "probe", "has failed, and gives way to `web`")?;
    replace(&mut system, "hello", "does not serve its front ends with image `hello`")?;
    assert!(system.shell("domains", seconds(30))?.contains("block runs image `web`"));
    // And back to the policy's own.
    replace(&mut system, "block", "runs image `block` now")?;
    goes_on(&mut system)?;
    expect_inventory(&mut system, before)?;

    system.guest_again("client")?.type_line("enough")?;
    system.leave_guest()?;
    system.expect_verdict("disk-survive", seconds(120))?;
    let log = system.log("client");
    assert!(log.iter().any(|line| line.ends_with("requests were done, 0 reconnections")), "a front end began anew");
    system.shutdown()?;
    check_image(&image, &log)?;
    fs::remove_file(&image)?;
    Ok(())
}
