# senet with the exact versions of constraints.txt; torch's wheels bring CUDA, the host needs only its driver.
#   docker build -t senet .                                 extras: --build-arg EXTRAS=fast,submitit,tensorboard
#   docker run --gpus all --ipc host -v DATA:/data:ro -v RUNS:/runs senet train.py runs_dir=/runs data=imagefolder data.root=/data
FROM python:3.12-slim

# Triton and torch.compile build their launchers and CPU kernels with a compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 senet && mkdir /app /runs && chown senet /app /runs
RUN pip install --no-cache-dir uv
WORKDIR /app

# Every package, the build backend too, in the version of constraints.txt and compared with its hash.
ARG EXTRAS=fast
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY senet ./senet
COPY configs ./configs
RUN uv pip install --system --no-cache -c constraints.txt -b constraints.txt ".[$EXTRAS]"
COPY train.py eval.py ./

USER senet
ENTRYPOINT ["python"]
CMD ["train.py", "--help"]
