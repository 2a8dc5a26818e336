# senet with the exact versions of constraints.txt; torch's wheels bring CUDA, the host needs only its driver.
#   docker build -t senet .
#   docker run --gpus all --ipc host -v DATA:/data:ro -v RUNS:/runs senet train.py runs_dir=/runs data=imagefolder data.root=/data
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 senet && mkdir /app /runs && chown senet /app /runs
WORKDIR /app

# Dependencies first: this layer changes only with constraints.txt. Every file is checked against its hash.
COPY constraints.txt ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r constraints.txt

COPY pyproject.toml README.md LICENSE ./
COPY senet ./senet
RUN pip install --no-cache-dir "hatchling>=1.27" && pip install --no-cache-dir --no-deps --no-build-isolation .
COPY train.py eval.py ./
COPY configs ./configs

USER senet
ENTRYPOINT ["python"]
CMD ["train.py", "--help"]
