"""The test cluster: real Kubernetes with a real node and object store on one machine, without a container engine.

``python -m testcluster up`` brings it up, ``down`` ends it, ``images`` builds and imports the images of the project.
The whole node lives in one network, one mount and one process namespace. Ending the first process of that namespace
ends every server and every container, and takes their mounts and interfaces along. That holds after any crash, too.
"""
