# mivolo_lite with CUDA's libraries (those of torch's wheel), every engine and every kind of storage:
#
#     docker build --tag mivolo-lite .
#     docker run --rm --gpus all --ipc host --volume "$PWD:/work" mivolo-lite \
#         accelerate launch --multi_gpu -m mivolo_lite train --config pkg:utkface
#
# Clusters with Apptainer: docs/launching-and-slurm.md, "Containers".
#
# --ipc host (Apptainer has it by default): loader workers hand images over in shared memory, of which Docker gives 64 MB.
FROM python:3.12-slim

# Triton, which DeepSpeed and torch.compile use, compiles a C file at its first launch.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY mivolo_lite mivolo_lite
COPY configs configs
COPY launch launch
RUN pip install --no-cache-dir '.[deepspeed,tensorboard,https,s3,gs,hf]'

WORKDIR /work
CMD ["mivolo-lite", "--help"]
