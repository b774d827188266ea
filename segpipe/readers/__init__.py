"""Files to volumes: NIfTI, DICOM series, and the layouts of archives."""
