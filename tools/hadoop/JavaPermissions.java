package org.apache.hadoop.fs.local;

import java.io.IOException;
import java.net.URI;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.nio.file.attribute.PosixFilePermissions;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.permission.FsPermission;

/**
 * The local file system of node managers, with permissions set by Java.
 *
 * <p>A Hadoop distribution does this in its native library. The Maven artifacts lack it, and then Hadoop runs `chmod`
 * once for each file of an archive that it unpacks: 29,000 processes for one Python environment.
 */
public class JavaPermissions extends LocalFs {
  public JavaPermissions(URI uri, Configuration conf) throws IOException, URISyntaxException {
    super(uri, conf);
  }

  @Override
  public void setPermission(Path path, FsPermission permission) throws IOException {
    if (permission.getStickyBit()) {
      super.setPermission(path, permission);
    } else {
      Files.setPosixFilePermissions(
          Paths.get(path.toUri().getPath()), PosixFilePermissions.fromString(permission.toString()));
    }
  }
}
